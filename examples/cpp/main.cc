// Streams raw audio (16 kHz, 16 bit, one channel) from standard input to Earmark, and prints each detection.
//
//   make -C examples/cpp
//   arecord -q -t raw -f S16_LE -r 16000 | examples/cpp/build/spot localhost:50051
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "earmark/v1/keyword_spotting_service.grpc.pb.h"

namespace v1 = earmark::v1;
using Stream = grpc::ClientReaderWriter<v1::StreamingSpotRequest, v1::StreamingSpotResponse>;

// Writes the configuration and all audio, and half-closes the stream. If the stream ends, so does writing.
void Send(Stream& stream) {
  v1::StreamingSpotRequest request;
  v1::AudioFormat& format = *request.mutable_config()->mutable_audio_format();
  format.set_encoding(v1::ENCODING_LINEAR16);
  format.set_sample_rate_hertz(16000);
  format.set_channel_count(1);
  bool open = stream.Write(request);
  char chunk[3200];  // 0.1 s
  ssize_t length;
  while (open && (length = read(STDIN_FILENO, chunk, sizeof chunk)) > 0) {
    request.set_audio(chunk, length);
    open = stream.Write(request);
  }
  stream.WritesDone();
}

double Seconds(const google::protobuf::Duration& duration) { return duration.seconds() + duration.nanos() / 1e9; }

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "localhost:50051";
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  auto stub = v1::KeywordSpottingService::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->StreamingSpot(&context);
  std::thread sender([&] { Send(*stream); });
  v1::StreamingSpotResponse response;
  while (stream->Read(&response)) {
    if (!response.has_detection()) continue;
    const v1::KeywordDetection& detection = response.detection();
    std::printf("%.2f %.2f %s %.2f\n", Seconds(detection.start_offset()), Seconds(detection.end_offset()),
                detection.keyword().c_str(), detection.confidence());
    std::fflush(stdout);
  }
  const grpc::Status status = stream->Finish();
  if (!status.ok()) {
    std::fprintf(stderr, "%d: %s\n", status.error_code(), status.error_message().c_str());
    std::_Exit(1);  // the sender may wait for standard input
  }
  sender.join();
}
