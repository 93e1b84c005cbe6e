package main

import (
	"context"
	"net"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffegrpc/grpccredentials"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// raw is a message whose bytes nobody looks at.
type raw struct{ bytes []byte }

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.(*raw).bytes, nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	v.(*raw).bytes = append([]byte(nil), data...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

var _ encoding.Codec = rawCodec{}

func source(ctx context.Context, api string) *workloadapi.X509Source {
	found, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(api)))
	must(err)
	return found
}

func dial(from *workloadapi.X509Source, url string) *grpc.ClientConn {
	secure := grpccredentials.MTLSClientCredentials(from, from, tlsconfig.AuthorizeAny())
	found, err := grpc.NewClient(
		strings.TrimPrefix(url, "tcp://"),
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})),
	)
	must(err)
	return found
}

func listen(url string) net.Listener {
	scheme, place, _ := strings.Cut(url, "://")
	found, err := net.Listen(scheme, place)
	must(err)
	return found
}
