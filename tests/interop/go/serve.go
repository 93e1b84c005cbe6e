package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const refusal = "no sufficient privileges: ünïcode 100%"

type method func(context.Context, []byte) ([]byte, error)

func unary(name string, do method) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(
		_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
	) (any, error) {
		in := &raw{}
		if err := decode(in); err != nil {
			return nil, err
		}
		answer, err := do(ctx, in.bytes)
		return &raw{answer}, err
	}}
}

// who tells the SPIFFE ID and the serial number of the caller's certificate.
func who(ctx context.Context, _ []byte) ([]byte, error) {
	from, _ := peer.FromContext(ctx)
	leaf := from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return nil, err
	}
	return []byte(fmt.Sprintf("%s %x", id, leaf.SerialNumber)), nil
}

func meta(ctx context.Context, _ []byte) ([]byte, error) {
	found, _ := metadata.FromIncomingContext(ctx)
	if err := grpc.SetHeader(ctx, metadata.Pairs("path", strings.Join(found.Get("path"), ","))); err != nil {
		return nil, err
	}
	return []byte(strings.Join(found.Get("nsm-client-token"), ",")), nil
}

func slow(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

func pause(_ context.Context, in []byte) ([]byte, error) {
	time.Sleep(500 * time.Millisecond)
	return in, nil
}

// count sends so many messages of 1,000 bytes, without end where the number is negative.
func count(_ any, stream grpc.ServerStream) error {
	in := &raw{}
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	wanted := 0
	if _, err := fmt.Sscan(string(in.bytes), &wanted); err != nil {
		return err
	}
	for number := 0; number != wanted; number++ {
		if err := stream.SendMsg(&raw{bytes.Repeat([]byte{byte(number)}, 1000)}); err != nil {
			return err
		}
		if wanted < 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

func serve(ctx context.Context, api, url string) {
	from := source(ctx, api)
	secure := credentials.NewTLS(tlsconfig.MTLSServerConfig(from, from, tlsconfig.AuthorizeAny()))
	server := grpc.NewServer(
		grpc.Creds(secure), grpc.ForceServerCodec(rawCodec{}), grpc.MaxHeaderListSize(64<<10),
	)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Peer",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Echo", func(_ context.Context, in []byte) ([]byte, error) { return in, nil }),
			unary("Who", who),
			unary("Meta", meta),
			unary("Fail", func(context.Context, []byte) ([]byte, error) {
				return nil, status.Error(codes.PermissionDenied, refusal)
			}),
			unary("Slow", slow),
			unary("Pause", pause),
		},
		Streams: []grpc.StreamDesc{{StreamName: "Count", ServerStreams: true, Handler: count}},
	}, struct{}{})
	go func() {
		for line := range commands() {
			if line == "drain" {
				server.GracefulStop()
				return
			}
		}
		server.Stop()
	}()
	place := listen(url)
	say(map[string]any{"ready": place.Addr().String()})
	must(server.Serve(place))
}
