# Every segment has a token that is a JWT. An empty path passes; no path at all does not.
package nsmesh.tokens_valid

import rego.v1

default valid := false

valid if {
	is_array(input.path_segments)
	every segment in input.path_segments {
		io.jwt.decode(segment.token)
	}
}
