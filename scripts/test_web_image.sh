#!/usr/bin/env bash
# Start a server and the web page from their images, and ask the page over HTTP: /health, /info, /predict.
#   scripts/test_web_image.sh SERVER_IMAGE WEB_IMAGE
set -euo pipefail
[ $# = 2 ] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
docker=${DOCKER:-docker}
restricted=(--read-only --cap-drop ALL --security-opt no-new-privileges)
server=$("$docker" run --detach "${restricted[@]}" "$1")
page=
finish() {
  [ $? = 0 ] || "$docker" logs "${page:-$server}" >&2
  "$docker" rm --force "$server" ${page:+"$page"} >/dev/null
}
trap finish EXIT
page=$("$docker" run --detach --network "container:$server" --tmpfs /tmp "${restricted[@]}" "$2")
# The page's container has the client and its samples.
"$docker" exec -i "$page" python - <<'PYTHON'
import json, time, urllib.error, urllib.request
from importlib import resources
base, edge = "http://localhost:8080", "edge"
deadline_s = time.monotonic() + 60
while True:
    try:
        assert json.load(urllib.request.urlopen(f"{base}/health")) == {"status": "SERVING"}
        break
    except (AssertionError, urllib.error.URLError) as error:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the page is not healthy after 60 s: {error}")
        time.sleep(0.2)
assert "<html" in urllib.request.urlopen(base).read().decode()
flac = (resources.files("earmark_cli") / "samples/demo.flac").read_bytes()
form = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="demo.flac"\r\n\r\n'.encode()
request = urllib.request.Request(f"{base}/predict", form + flac + f"\r\n--{edge}--\r\n".encode())
request.add_header("Content-Type", f"multipart/form-data; boundary={edge}")
answer = json.load(urllib.request.urlopen(request))
assert sum(answer["probabilities"].values()) > 0.99
model = json.load(urllib.request.urlopen(f"{base}/info"))["model"]
print(f"{model}: /predict says {answer['prediction']}, in {answer['latency_ms']:.1f} ms")
PYTHON
"$docker" stop --time 10 "$page" >/dev/null
[ "$("$docker" inspect -f '{{.State.ExitCode}}' "$page")" = 0 ] || { echo "The page did not stop by itself." >&2; exit 1; }
