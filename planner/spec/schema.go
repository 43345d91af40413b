package spec

import _ "embed"

// SchemaJSON is the JSON Schema (draft 2020-12) of the document. A test holds
// it and the Go types to the same properties.
//
//go:embed plan.schema.json
var SchemaJSON []byte
