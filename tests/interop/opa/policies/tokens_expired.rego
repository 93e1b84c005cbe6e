# Every token says when it ends, and that lies in the future.
package nsmesh.tokens_expired

import rego.v1

default valid := false

valid if {
	is_array(input.path_segments)
	every segment in input.path_segments {
		[_, claims, _] := io.jwt.decode(segment.token)
		claims.exp * 1000000000 > time.now_ns()
	}
}
