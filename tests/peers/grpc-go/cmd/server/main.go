// Command server is grpc-go's interop test service, bound to one address (the stock server listens on all interfaces), with
// server reflection and health checks.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
	_ "unsafe" // for go:linkname

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/reflection"
)

// orca_oob requests a report per second, but the minimum interval is 30 s. The stock server lowers it with this hook.
//
//go:linkname allowAnyInterval google.golang.org/grpc/internal.ORCAAllowAnyMinReportingInterval
var allowAnyInterval any

// service sets server_id, which grpc-go's service leaves empty and the client's test case pick_first_unary needs.
type service struct {
	testgrpc.TestServiceServer
	id string
}

func (s service) UnaryCall(ctx context.Context, request *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	response, err := s.TestServiceServer.UnaryCall(ctx, request)
	if err == nil && request.GetFillServerId() {
		response.ServerId = s.id
	}
	return response, err
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	cert := flag.String("cert", "", "TLS certificate (PEM); plaintext without")
	key := flag.String("key", "", "TLS key (PEM)")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	options := []grpc.ServerOption{orca.CallMetricsServerOption(nil)}
	if *cert != "" {
		credential, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(credential))
	}
	server := grpc.NewServer(options...)
	recorder := orca.NewServerMetricsRecorder()
	reports := orca.ServiceOptions{MinReportingInterval: time.Second, ServerMetricsProvider: recorder}
	allowAnyInterval.(func(*orca.ServiceOptions))(&reports)
	if err := orca.Register(server, reports); err != nil {
		log.Fatal(err)
	}
	testgrpc.RegisterTestServiceServer(server, service{
		interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder}), listener.Addr().String(),
	})
	healthpb.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	fmt.Printf("listening %s\n", listener.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; server.Stop() }()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
