// A gRPC server that replies to any unary call of any service with the bytes of the request, without decoding them. With
// -protoset, it offers server reflection for those services. For load tests, run it with GOMAXPROCS=1.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	goproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

type frame struct{ data mem.BufferSlice }

// codec passes frames through and delegates everything else (reflection) to the default codec.
type codec struct{ fallback encoding.CodecV2 }

func (c codec) Name() string { return proto.Name }

func (c codec) Marshal(value any) (mem.BufferSlice, error) {
	if f, ok := value.(*frame); ok {
		return f.data, nil
	}
	return c.fallback.Marshal(value)
}

func (c codec) Unmarshal(data mem.BufferSlice, value any) error {
	if f, ok := value.(*frame); ok {
		data.Ref()
		f.data = data
		return nil
	}
	return c.fallback.Unmarshal(data, value)
}

func echo(_ any, stream grpc.ServerStream) error {
	f := &frame{}
	if err := stream.RecvMsg(f); err != nil {
		return err
	}
	return stream.SendMsg(f)
}

type services map[string]grpc.ServiceInfo

func (s services) GetServiceInfo() map[string]grpc.ServiceInfo { return s }

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	protoset := flag.String("protoset", "", "FileDescriptorSet for server reflection")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.UnknownServiceHandler(echo),
		grpc.MaxConcurrentStreams(1000),
		grpc.NumStreamWorkers(4),
		grpc.SharedWriteBuffer(true),
	)
	if *protoset != "" {
		files, info, err := load(*protoset)
		if err != nil {
			log.Fatal(err)
		}
		reflectionpb.RegisterServerReflectionServer(server, reflection.NewServerV1(reflection.ServerOptions{
			Services: info, DescriptorResolver: files,
		}))
	}
	fmt.Printf("listening %s\n", listener.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; server.Stop() }()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

func load(path string) (*protoregistry.Files, services, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := goproto.Unmarshal(bytes, set); err != nil {
		return nil, nil, err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, nil, err
	}
	info := services{}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := 0; i < file.Services().Len(); i++ {
			info[string(file.Services().Get(i).FullName())] = grpc.ServiceInfo{Metadata: file.Path()}
		}
		return true
	})
	return files, info, nil
}
