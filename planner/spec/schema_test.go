package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// vocabularies are the enumerations by type and JSON name.
var vocabularies = map[string][]string{
	"Target.kind": targetKinds, "Source.stated_by": statedBy, "Candidate.stated_by": statedBy, "Environment.manager": managers,
	"Index.kind": indexKinds, "DependencyFile.role": roles, "DependencyFile.pinned": pinnings, "SKUFit.status": fits, "Run.kind": runKinds, "Run.route": runRoutes,
	"Run.status": runStatuses, "Patch.kind": patchKinds, "Asset.kind": assetKinds, "Asset.access": accesses, "Collect.kind": collectKinds,
	"Collect.select": selectors, "Claim.checkable": checkables, "Claim.relation": relations, "Claim.direction": directions,
	"Expectation.direction": directions, "Tolerance.kind": toleranceKind, "Script.interpreter": interpreters, "Suite.kind": suiteKinds, "Setting.class": settingClass,
	"Binding.kind": bindingKinds, "Need.what": needKinds, "Need.status": runStatuses, "Preflight.status": preflights, "Seeding.by": seedings,
}

// TestSchema holds the schema file to the Go types: the file is generated from
// them and from their comments, and rewritten only with -update.
func TestSchema(t *testing.T) {
	g := &schemaGen{defs: map[string]any{}, docs: comments(t)}
	root := g.object(reflect.TypeFor[Plan]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://github.com/repromill/repromill/planner/spec/plan.schema.json"
	root["title"] = "repromill plan, version 1"
	root["$defs"] = g.defs
	root["properties"].(map[string]any)["schema"] = map[string]any{"const": SchemaV1}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("plan.schema.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("plan.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Error("plan.schema.json is not in step with the Go types; run go test ./planner/spec -run TestSchema -update")
	}
}

type schemaGen struct {
	defs map[string]any
	docs map[string]string
}

func (g *schemaGen) ref(t reflect.Type) map[string]any {
	name := t.Name()
	if _, ok := g.defs[name]; !ok {
		g.defs[name] = nil // breaks recursion
		g.defs[name] = g.object(t)
	}
	return map[string]any{"$ref": "#/$defs/" + name}
}

func (g *schemaGen) object(t reflect.Type) map[string]any {
	props := map[string]any{}
	required := []string{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || len(f.Index) > 1 && !embedded(t, f) {
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		omit := strings.Contains(opts, "omitempty")
		p := g.value(f.Type, omit)
		if enum := vocabularies[t.Name()+"."+name]; enum != nil {
			if omit {
				enum = slices.DeleteFunc(slices.Clone(enum), func(s string) bool { return s == "" })
			}
			p["enum"] = enum
			delete(p, "type")
		}
		if d := g.docs[t.Name()+"."+f.Name]; d != "" {
			p["description"] = d
		}
		props[name] = p
		if !omit {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	out := map[string]any{"type": "object", "additionalProperties": false, "properties": props}
	if d := g.docs[t.Name()]; d != "" {
		out["description"] = d
	}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// embedded says that the field is promoted from an embedded struct.
func embedded(t reflect.Type, f reflect.StructField) bool {
	return t.FieldByIndex(f.Index[:len(f.Index)-1]).Anonymous
}

func (g *schemaGen) value(t reflect.Type, omit bool) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[Kind]():
		return map[string]any{"enum": []Kind{Measured, Published, Derived, Estimated, Assumed}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.value(t.Elem(), omit)
	case reflect.Struct:
		return g.ref(t)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		out := map[string]any{"type": "array", "items": g.value(t.Elem(), false)}
		if !omit {
			out["type"] = []string{"array", "null"}
		}
		return out
	case reflect.Map:
		out := map[string]any{"type": "object"}
		if t.Elem().Kind() != reflect.Interface {
			out["additionalProperties"] = g.value(t.Elem(), false)
		}
		return out
	}
	return map[string]any{}
}

// comments reads the comments of types and fields from the source.
func comments(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			gd, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range gd.Specs {
				ts, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if gd.Doc != nil {
					out[ts.Name.Name] = flat(gd.Doc.Text())
				}
				if st, ok := ts.Type.(*ast.StructType); ok {
					for _, fl := range st.Fields.List {
						for _, n := range fl.Names {
							out[ts.Name.Name+"."+n.Name] = flat(fl.Doc.Text() + fl.Comment.Text())
						}
					}
				}
			}
		}
	}
	return out
}

func flat(s string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("[Plan.", "", "[", "", "]", "").Replace(s)), " ")
}

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(SchemaJSON))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("plan.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("plan.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaAccepts(t *testing.T) {
	s := compiled(t)
	var b bytes.Buffer
	p := example()
	p.Seal()
	if err := p.Encode(&b); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("the full example is refused: %v", err)
	}
	for _, bad := range []func(map[string]any){
		func(m map[string]any) { m["schema"] = "repromill.plan/v0" },
		func(m map[string]any) { m["extra"] = 1 },
		func(m map[string]any) { delete(m, "runs") },
		func(m map[string]any) { m["runs"].([]any)[0].(map[string]any)["kind"] = "tiny" },
		func(m map[string]any) { m["claims"].([]any)[0].(map[string]any)["value"] = "five" },
	} {
		var m map[string]any
		var b bytes.Buffer
		if err := p.Encode(&b); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		bad(m)
		if s.Validate(m) == nil {
			t.Error("a broken document is accepted")
		}
	}
}
