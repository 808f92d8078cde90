// A client of earmark.v1, written from protos/ alone:
//
//   node index.mjs HOST:PORT SAMPLES.raw SAMPLE_RATE_HZ [MODEL...]
//
// sends 16-bit mono samples as a stream and prints what comes back, one JSON object a line. Then it
// asks for a keyword that no model has, and prints how that is refused.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [address, samplesPath, sampleRateHz, ...modelNames] = process.argv.slice(2);
const definition = protoLoader.loadSync(
  ["earmark/v1/keyword_spotting_service.proto", "google_rpc.proto"],
  {
    includeDirs: ["../../../protos", "."].map((folder) =>
      fileURLToPath(new URL(folder, import.meta.url)),
    ),
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  },
);
const { KeywordSpottingService } =
  grpc.loadPackageDefinition(definition).earmark.v1;
const client = new KeywordSpottingService(
  address,
  grpc.credentials.createInsecure(),
);

const print = (value) => console.log(JSON.stringify(value));
const seconds = (duration) => duration.seconds + duration.nanos / 1e9;

// The health protocol has one string in and one small number out: no need for its proto file.
function health(service) {
  const name = Buffer.from(service);
  const request = Buffer.concat([Buffer.from([0x0a, name.length]), name]);
  const response = (bytes) =>
    ["UNKNOWN", "SERVING", "NOT_SERVING"][bytes[1] ?? 0];
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      "/grpc.health.v1.Health/Check",
      (bytes) => bytes,
      response,
      request,
      (error, status) => resolve(error ? grpc.status[error.code] : status),
    );
  });
}

function listModels() {
  return new Promise((resolve, reject) => {
    client.listModels({}, (error, response) =>
      error ? reject(error) : resolve(response.models),
    );
  });
}

function reasonOf(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const status = definition["google.rpc.Status"].deserialize(bytes);
  const info = status.details.find((any) =>
    any.type_url.endsWith("google.rpc.ErrorInfo"),
  );
  return definition["google.rpc.ErrorInfo"].deserialize(info.value);
}

// Sends a config and audio, and prints the events until the stream ends, well or not.
function stream(config, audio) {
  return new Promise((resolve) => {
    const call = client.streamingSpot();
    call.on("data", (response) => {
      const event = response[response.event];
      const printed = { event: response.event };
      if (response.event === "started") {
        printed.model = event.model;
        printed.models = event.models.map((one) => one.name);
        printed.keywords = event.keywords.map((one) => one.keyword);
      } else if (response.event === "detection") {
        printed.keyword = event.keyword;
        printed.model = event.model;
        printed.id = event.detection_id;
        printed.start_s = seconds(event.start_offset);
        printed.end_s = seconds(event.end_offset);
        printed.confidence = event.confidence;
      } else if (response.event === "progress") {
        printed.token_bytes = event.resume_token.length;
      } else if (response.event === "ended") {
        printed.audio_s = seconds(event.audio_duration);
        printed.detections = event.detection_count;
      }
      print(printed);
    });
    call.on("error", (error) => {
      const { reason, domain } = reasonOf(error);
      print({ event: "refused", code: grpc.status[error.code], reason, domain });
    });
    call.on("status", (status) => {
      const [requestId] = status.metadata.get("earmark-request-id");
      print({ event: "status", code: grpc.status[status.code], request_id: requestId });
      resolve();
    });
    call.write({ config });
    for (let start = 0; start < audio.length; start += 5000) {
      call.write({ audio: audio.subarray(start, start + 5000) });
    }
    call.end();
  });
}

print({
  event: "health",
  server: await health(""),
  service: await health("earmark.v1.KeywordSpottingService"),
  unknown: await health("no.such.Service"),
});
const models = await listModels();
print({ event: "models", names: models.map((model) => model.name) });

const audio_format = {
  encoding: "ENCODING_LINEAR16",
  sample_rate_hertz: Number(sampleRateHz),
};
await stream(
  { audio_format, request_id: "node 1", models: modelNames },
  readFileSync(samplesPath),
);
await stream(
  { audio_format, request_id: "node 2", keywords: [{ keyword: "xyzzy" }] },
  Buffer.alloc(0),
);
client.close();
