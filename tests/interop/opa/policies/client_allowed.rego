# A name is free, or belongs to the subject of the path's first token.
package nsmesh.client_allowed

import rego.v1

default valid := false

valid if not input.resource_path_ids_map[input.resource_name]

valid if {
	[_, claims, _] := io.jwt.decode(input.path_segments[0].token)
	input.resource_path_ids_map[input.resource_name][0] == claims.sub
}
