// Peer is a plain peer of the field: grpc-go over mutual TLS, with identities that go-spiffe fetches.
//
//	peer serve -api URL -url URL    serves test.Peer until its input ends; a line "drain" stops it gracefully
//	peer call  -api URL -url URL    runs every check against a server and prints a line of JSON for each
//	peer watch -api URL             prints what the Workload API gives, and each change, until its input ends
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
)

var printing sync.Mutex

// say prints a line of JSON.
func say(values map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	text, err := json.Marshal(values)
	must(err)
	fmt.Println(string(text))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// commands gives the lines of the input, and is closed with it.
func commands() <-chan string {
	found := make(chan string)
	go func() {
		defer close(found)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			found <- lines.Text()
		}
	}()
	return found
}

func main() {
	flags := flag.NewFlagSet("peer", flag.ExitOnError)
	api := flags.String("api", "", "URL of the Workload API")
	url := flags.String("url", "", "unix:///path or tcp://host:port")
	must(flags.Parse(os.Args[2:]))
	ctx := context.Background()
	switch os.Args[1] {
	case "serve":
		serve(ctx, *api, *url)
	case "call":
		call(ctx, *api, *url)
	case "watch":
		watch(ctx, *api)
	}
}
