//go:build tools

// Package tool pins h2spec, the conformance tester of HTTP/2.
package tool

import _ "github.com/summerwind/h2spec"
