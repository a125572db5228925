package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// A message as bytes: this client reads and writes the few fields of gateway.proto that it needs.
type raw []byte

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(value any) ([]byte, error) { return *value.(*raw), nil }

func (rawCodec) Unmarshal(data []byte, value any) error {
	*value.(*raw) = append(raw(nil), data...)
	return nil
}

// How many deliveries of a stream may be unsettled.
const unsettled = 1000

// Two connections to each instance: one adds messages, one consumes them.
func crossdock(addresses []string, name string, keys int) (queue, error) {
	calling := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("API_TOKEN"))
	connect := func(address string) (*grpc.ClientConn, error) {
		return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	}
	var adding, consuming []*grpc.ClientConn
	for _, address := range addresses {
		for _, to := range []*[]*grpc.ClientConn{&adding, &consuming} {
			connection, err := connect(address)
			if err != nil {
				return queue{}, err
			}
			*to = append(*to, connection)
		}
	}
	enqueue := func(key int, body []byte) error {
		request := make(raw, 0, len(body)+64)
		request = appendText(request, 1, name)
		request = appendText(request, 2, strconv.Itoa(key))
		request = protowire.AppendBytes(protowire.AppendTag(request, 3, protowire.BytesType), body)
		var response raw
		return adding[key%len(adding)].Invoke(calling, "/crossdock.v1.Queues/Enqueue", &request, &response)
	}
	consume := func(deliver func(key int, body []byte)) error {
		for _, connection := range consuming {
			stream, err := connection.NewStream(calling, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/crossdock.v1.Queues/Consume")
			if err != nil {
				return err
			}
			open := appendNumber(appendText(nil, 1, name), 2, unsettled)
			request := appendMessage(nil, 1, open)
			if err := stream.SendMsg(&request); err != nil {
				return err
			}
			go func() {
				for {
					var delivery raw
					if err := stream.RecvMsg(&delivery); err != nil {
						log.Fatal(err)
					}
					number, key, body, err := read(delivery)
					if err != nil {
						log.Fatal(err)
					}
					deliver(key, body)
					settlement := appendMessage(nil, 2, appendNumber(appendNumber(nil, 1, number), 2, 1))
					if err := stream.SendMsg(&settlement); err != nil {
						log.Fatal(err)
					}
				}
			}()
		}
		return nil
	}
	return queue{enqueue, consume}, nil
}

func appendText(to raw, field protowire.Number, text string) raw {
	return protowire.AppendString(protowire.AppendTag(to, field, protowire.BytesType), text)
}

func appendMessage(to raw, field protowire.Number, message raw) raw {
	return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), message)
}

func appendNumber(to raw, field protowire.Number, value uint64) raw {
	return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), value)
}

// Reads the number, the key and the body of a delivery.
func read(delivery raw) (number uint64, key int, body []byte, err error) {
	for len(delivery) > 0 {
		field, kind, n := protowire.ConsumeTag(delivery)
		if n < 0 {
			return 0, 0, nil, protowire.ParseError(n)
		}
		delivery = delivery[n:]
		length := protowire.ConsumeFieldValue(field, kind, delivery)
		if length < 0 {
			return 0, 0, nil, protowire.ParseError(length)
		}
		switch field {
		case 1:
			number, _ = protowire.ConsumeVarint(delivery)
		case 2:
			text, _ := protowire.ConsumeString(delivery)
			if key, err = strconv.Atoi(text); err != nil {
				return 0, 0, nil, fmt.Errorf("the key %q was not sent: %w", text, err)
			}
		case 3:
			body, _ = protowire.ConsumeBytes(delivery)
		}
		delivery = delivery[length:]
	}
	return number, key, body, nil
}
