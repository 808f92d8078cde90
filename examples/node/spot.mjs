// Streams raw audio (16 kHz, 16 bit, one channel) from standard input to Earmark, and prints each detection.
//
//   npm install @grpc/grpc-js @grpc/proto-loader
//   arecord -q -t raw -f S16_LE -r 16000 | node spot.mjs localhost:50051 ../../protos
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address = "localhost:50051", protos = "../../protos"] = process.argv.slice(2);
// Without `defaults`, fields that are zero would be missing.
const options = { includeDirs: [protos], enums: String, longs: Number, defaults: true };
const contract = loadSync("earmark/v1/keyword_spotting_service.proto", options);
const { KeywordSpottingService } = grpc.loadPackageDefinition(contract).earmark.v1;
const client = new KeywordSpottingService(address, grpc.credentials.createInsecure());
const seconds = ({ seconds, nanos }) => seconds + nanos / 1e9;

const call = client.streamingSpot();
call.on("data", ({ detection }) => {
  if (!detection) return;
  const { keyword, confidence, startOffset, endOffset } = detection;
  console.log(`${seconds(startOffset).toFixed(2)} ${seconds(endOffset).toFixed(2)} ${keyword} ${confidence.toFixed(2)}`);
});
call.on("error", ({ code, details }) => {
  console.error(`${grpc.status[code]}: ${details}`);
  process.exit(1); // the loop below may wait for standard input
});

call.write({ config: { audioFormat: { encoding: "ENCODING_LINEAR16", sampleRateHertz: 16000, channelCount: 1 } } });
for await (const audio of process.stdin) {
  // `write` returns false when the server applies backpressure.
  if (!call.write({ audio })) await new Promise((resolve) => call.once("drain", resolve));
}
call.end();
