# The server signed the token of the segment behind ours. An index of 0 is left out.
package nsmesh.next_token_signed

import rego.v1

default valid := false

valid if {
	following := object.get(input, "index", 0) + 1
	count(input.path_segments) > following
	io.jwt.verify_es256(input.path_segments[following].token, input.auth_info.certificate)
}
