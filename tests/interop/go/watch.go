package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// told prints each X.509 context that the Workload API pushes.
type told struct{}

func (told) OnX509ContextUpdate(found *workloadapi.X509Context) {
	svid := found.DefaultSVID()
	bundle, _ := found.Bundles.Get(svid.ID.TrustDomain())
	say(map[string]any{
		"svid":        svid.ID.String(),
		"serial":      fmt.Sprintf("%x", svid.Certificates[0].SerialNumber),
		"authorities": len(bundle.X509Authorities()),
	})
}

func (told) OnX509ContextWatchError(err error) { say(map[string]any{"trouble": err.Error()}) }

func watch(ctx context.Context, api string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	place := workloadapi.WithAddr(api)
	options := workloadapi.WithClientOptions(place)
	go func() { _ = workloadapi.WatchX509Context(ctx, told{}, place) }()

	from := source(ctx, api)
	svid, err := from.GetX509SVID()
	must(err)
	bundles, err := workloadapi.NewBundleSource(ctx, options)
	must(err)
	bundle, err := bundles.GetBundleForTrustDomain(svid.ID.TrustDomain())
	must(err)
	say(map[string]any{"bundle": svid.ID.TrustDomain().String(), "authorities": len(bundle.X509Authorities()),
		"keys": len(bundle.JWTAuthorities())})

	tokens, err := workloadapi.NewJWTSource(ctx, options)
	must(err)
	token, err := tokens.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "somebody"})
	must(err)
	read, err := jwtsvid.ParseAndValidate(token.Marshal(), jwtbundle.Source(tokens), []string{"somebody"})
	must(err)
	_, wrong := jwtsvid.ParseAndValidate(token.Marshal(), jwtbundle.Source(tokens), []string{"nobody"})
	say(map[string]any{"jwt": read.ID.String(), "lives": time.Until(read.Expiry) > 0, "wrong": wrong != nil})
	valid, err := workloadapi.ValidateJWTSVID(ctx, token.Marshal(), "somebody", place)
	must(err)
	say(map[string]any{"validated": valid.ID.String()})
	for range commands() {
	}
}
