"""Several microphones, one answer: of the devices that detect a word at the same time, the best signal wins.

    python arbiter.py 'ssh kitchen earmark listen --json' 'ssh hall earmark listen --json'

Each argument is a command that prints the JSON lines of one device. The line of the winner is printed.
"""

import asyncio
import json
import shlex
import sys

# A word arrives at all devices within milliseconds, and is detected within one step of the model or two.
WINDOW_S = 0.5


async def read(device: str, detections: asyncio.Queue) -> None:
    """Put the detections of a device into a queue."""
    process = await asyncio.create_subprocess_exec(*shlex.split(device), stdout=asyncio.subprocess.PIPE)
    async for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "detection":
            await detections.put({"device": device, **event})


async def main(devices: list[str]) -> None:
    """Print the best of the detections that come at the same time."""
    detections: asyncio.Queue = asyncio.Queue()
    reading = asyncio.gather(*(read(device, detections) for device in devices))
    reading.add_done_callback(lambda _: detections.put_nowait(None))
    while (first := await detections.get()) is not None:
        await asyncio.sleep(WINDOW_S)
        rivals = [first] + [detections.get_nowait() for _ in range(detections.qsize())]
        for keyword in {rival["keyword"] for rival in rivals if rival}:
            same = [rival for rival in rivals if rival and rival["keyword"] == keyword]
            print(json.dumps(max(same, key=lambda rival: rival["snr_db"] or 0)), flush=True)
        if None in rivals:
            break
    await reading


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
