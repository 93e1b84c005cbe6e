# Each token but the last is addressed to the subject of the next. Two audiences of which one is right have no
# answer: the function below would have two values.
package nsmesh.tokens_chained

import rego.v1

default valid := false

valid if {
	is_array(input.path_segments)
	count(input.path_segments) < 2
}

valid if {
	count(input.path_segments) > 1
	every i in numbers.range(0, count(input.path_segments) - 2) {
		addressed_to_next(i)
	}
}

claims(i) := found if [_, found, _] := io.jwt.decode(input.path_segments[i].token)

addressed_to_next(i) := answer if {
	is_array(claims(i).aud)
	some audience in claims(i).aud
	answer := audience == claims(i + 1).sub
}
