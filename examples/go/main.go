// Streams raw audio (16 kHz, 16 bit, one channel) from standard input to Earmark, and prints each detection.
//
//	make -C examples/go
//	arecord -q -t raw -f S16_LE -r 16000 | examples/go/build/spot localhost:50051
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"

	earmark "earmark/v1"
)

func main() {
	log.SetFlags(0)
	address := "localhost:50051"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	connection, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	stream, err := earmark.NewKeywordSpottingServiceClient(connection).StreamingSpot(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	go send(stream, os.Stdin)
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		if detection := response.GetDetection(); detection != nil {
			fmt.Printf("%.2f %.2f %s %.2f\n", detection.StartOffset.AsDuration().Seconds(),
				detection.EndOffset.AsDuration().Seconds(), detection.Keyword, detection.Confidence)
		}
	}
}

// send writes the configuration and all audio, and half-closes the stream. An error here ends Recv too.
func send(stream earmark.KeywordSpottingService_StreamingSpotClient, audio io.Reader) {
	format := &earmark.AudioFormat{Encoding: earmark.Encoding_ENCODING_LINEAR16, SampleRateHertz: 16000, ChannelCount: 1}
	config := &earmark.StreamingSpotRequest_Config{Config: &earmark.StreamingConfig{AudioFormat: format}}
	err := stream.Send(&earmark.StreamingSpotRequest{Request: config})
	chunk := make([]byte, 3200) // 0.1 s
	for err == nil {
		var length int
		length, err = audio.Read(chunk)
		if length > 0 {
			request := &earmark.StreamingSpotRequest_Audio{Audio: chunk[:length]}
			if stream.Send(&earmark.StreamingSpotRequest{Request: request}) != nil {
				return
			}
		}
	}
	stream.CloseSend()
}
