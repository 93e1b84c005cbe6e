package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type caller struct {
	*grpc.ClientConn
}

func (c caller) do(ctx context.Context, name string, in []byte, options ...grpc.CallOption) ([]byte, error) {
	out := &raw{}
	err := c.Invoke(ctx, "/test.Peer/"+name, &raw{in}, out, options...)
	return out.bytes, err
}

func (c caller) count(ctx context.Context, wanted int) (grpc.ClientStream, error) {
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Peer/Count")
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&raw{[]byte(fmt.Sprint(wanted))}); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

func check(name string, good bool, note any) {
	say(map[string]any{"check": name, "ok": good, "note": fmt.Sprint(note)})
}

func call(ctx context.Context, api, url string) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	from := source(ctx, api)
	c := caller{dial(from, url)}
	sizes(ctx, c)
	answers(ctx, c)
	ends(ctx, c)
	streams(ctx, c)
	together(ctx, c)

	stream, err := c.count(ctx, -1)
	must(err)
	must(stream.RecvMsg(&raw{}))
	before, _ := c.do(ctx, "Who", nil)
	updated := from.Updated()
	say(map[string]any{"do": "rotate"})
	<-updated
	for range 50 {
		if err = stream.RecvMsg(&raw{}); err != nil {
			break
		}
	}
	check("rotation: a stream goes on", err == nil, err)
	again := caller{dial(from, url)}
	after, err := again.do(ctx, "Who", nil)
	svid, _ := from.GetX509SVID()
	serial := fmt.Sprintf("%x", svid.Certificates[0].SerialNumber)
	check("rotation: new connections show the new SVID",
		err == nil && !bytes.Equal(before, after) && strings.HasSuffix(string(after), serial), string(after))

	done := make(chan error, 1)
	go func() { _, err := again.do(ctx, "Pause", []byte("x")); done <- err }()
	time.Sleep(100 * time.Millisecond)
	say(map[string]any{"do": "drain"})
	check("drain: what runs ends well", <-done == nil, "")
	for err == nil {
		time.Sleep(20 * time.Millisecond)
		_, err = again.do(ctx, "Echo", nil)
	}
	check("drain: nothing new begins", status.Code(err) == codes.Unavailable, err)
}

func sizes(ctx context.Context, c caller) {
	for _, size := range []int{0, 1, 1000, 16384, 16385, 70000, 1 << 20, 3 << 20} {
		in := bytes.Repeat([]byte{7}, size)
		out, err := c.do(ctx, "Echo", in)
		check(fmt.Sprintf("%d bytes", size), err == nil && bytes.Equal(in, out), err)
	}
}

func answers(ctx context.Context, c caller) {
	out, err := c.do(ctx, "Who", nil)
	check("our SPIFFE ID is seen", err == nil && strings.HasPrefix(string(out), "spiffe://"), string(out))
	_, err = c.do(ctx, "Fail", nil)
	said := status.Convert(err)
	check("status and text", said.Code() == codes.PermissionDenied && said.Message() == refusal, err)
	_, err = c.do(ctx, "Nothing", nil)
	check("unknown method", status.Code(err) == codes.Unimplemented, err)
	for _, size := range []int{10, 3000, 30000} {
		var head metadata.MD
		token := strings.Repeat("eyJ0.", size/5)
		sent := metadata.NewOutgoingContext(ctx, metadata.Pairs("nsm-client-token", token, "path", `{"Index":0}`))
		out, err := c.do(sent, "Meta", nil, grpc.Header(&head))
		check(fmt.Sprintf("%d bytes of metadata", size),
			err == nil && string(out) == token && len(head.Get("path")) == 1, err)
	}
}

func ends(ctx context.Context, c caller) {
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	began := time.Now()
	_, err := c.do(short, "Slow", nil)
	cancel()
	check("deadline", status.Code(err) == codes.DeadlineExceeded && time.Since(began) < time.Second, err)
	given, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = c.do(given, "Slow", nil)
	check("cancel", status.Code(err) == codes.Canceled, err)
}

func streams(ctx context.Context, c caller) {
	stream, err := c.count(ctx, 5000)
	must(err)
	found := 0
	for ; err == nil; found++ {
		err = stream.RecvMsg(&raw{})
	}
	check("a stream of 5,000", found-1 == 5000 && errors.Is(err, io.EOF), err)
	given, cancel := context.WithCancel(ctx)
	stream, err = c.count(given, -1)
	must(err)
	for range 20 {
		err = stream.RecvMsg(&raw{})
	}
	cancel()
	check("an endless stream, given up", err == nil, err)
}

func together(ctx context.Context, c caller) {
	var all sync.WaitGroup
	failed := make(chan error, 64*20)
	for range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 20 {
				if _, err := c.do(ctx, "Echo", make([]byte, 984)); err != nil {
					failed <- err
				}
			}
		}()
	}
	all.Wait()
	check("64 at a time", len(failed) == 0, len(failed))
}
