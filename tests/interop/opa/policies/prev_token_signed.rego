# The caller signed the token of the segment before ours.
package nsmesh.prev_token_signed

import rego.v1

default valid := false

valid if {
	input.index > 0
	token := input.path_segments[input.index - 1].token
	io.jwt.verify_es256(token, input.auth_info.certificate)
}
