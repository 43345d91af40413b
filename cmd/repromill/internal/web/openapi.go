package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
)

func (c *call) apiDocument() (int, any, error) { return http.StatusOK, c.s.document(), nil }

func (c *call) apiPlanSchema() (int, any, error) {
	return http.StatusOK, json.RawMessage(spec.SchemaJSON), nil
}

// document is the OpenAPI 3.1 description of the routes. The shapes come from
// the types that are encoded, so the two cannot differ.
func (s *Server) document() map[string]any {
	g := &shapes{defs: map[string]any{}, names: map[reflect.Type]string{}}
	problemRef := map[string]any{"description": "What went wrong, and the fix.", "content": media("application/problem+json", g.of(reflect.TypeFor[problem]()))}
	paths := map[string]any{}
	for _, r := range s.routes {
		op := map[string]any{"summary": r.summary, "operationId": operationID(r)}
		if r.scope != "" {
			op["security"] = []any{map[string]any{"key": []string{}}, map[string]any{}}
			op["x-scope"] = r.scope
		}
		var params []any
		for _, p := range r.params {
			params = append(params, map[string]any{"name": p.name, "in": p.in, "required": p.in == "path", "description": p.doc, "schema": map[string]any{"type": p.kind}})
		}
		if params != nil {
			op["parameters"] = params
		}
		if r.body != nil {
			op["requestBody"] = map[string]any{"required": true, "content": media("application/json", g.of(reflect.TypeOf(r.body)))}
		}
		answers := map[string]any{"default": problemRef}
		for status, v := range r.answers {
			content := map[string]any{}
			if v != nil {
				content = media("application/json", g.of(reflect.TypeOf(v)))
			}
			if kind := r.kinds[status]; kind != "" {
				content[kind] = map[string]any{"schema": map[string]any{"type": "string"}}
			}
			answers[strconv.Itoa(status)] = map[string]any{"description": http.StatusText(status), "content": content}
		}
		op["responses"] = answers
		at, _ := paths[r.path].(map[string]any)
		if at == nil {
			at = map[string]any{}
			paths[r.path] = at
		}
		at[strings.ToLower(r.method)] = op
	}
	return map[string]any{
		"openapi":    "3.1.0",
		"info":       map[string]any{"title": "repromill", "version": "1", "description": "Submit what a paper or a model card claims, approve the plan, follow the run, read the verdict."},
		"paths":      paths,
		"components": map[string]any{"schemas": g.defs, "securitySchemes": map[string]any{"key": map[string]any{"type": "http", "scheme": "bearer"}}},
	}
}

func media(kind string, schema any) map[string]any {
	return map[string]any{kind: map[string]any{"schema": schema}}
}

// operationID is the method and the fixed words of the path: getRunsEvents.
func operationID(r route) string {
	out := strings.ToLower(r.method)
	for _, part := range strings.FieldsFunc(r.path, func(c rune) bool { return c == '/' || c == '.' }) {
		if part == "v1" {
			continue
		}
		if strings.HasPrefix(part, "{") {
			part = "one"
		}
		out += strings.ToUpper(part[:1]) + part[1:]
	}
	return out
}

// shapes makes JSON Schemas (draft 2020-12) of Go types as encoding/json writes
// them.
type shapes struct {
	defs  map[string]any
	names map[reflect.Type]string
}

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

func (g *shapes) of(t reflect.Type) map[string]any {
	switch {
	case t == timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	case t == rawType:
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice, reflect.Array:
		items := g.of(t.Elem())
		if t.Elem().Kind() == reflect.Pointer {
			items = nullable(items)
		}
		return map[string]any{"type": "array", "items": items}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return map[string]any{"type": "object"}
		}
		return map[string]any{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Struct:
		return map[string]any{"$ref": "#/components/schemas/" + g.define(t)}
	}
	return map[string]any{}
}

func nullable(schema map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{schema, map[string]any{"type": "null"}}}
}

// define makes the schema of a struct once, under a name of its own.
func (g *shapes) define(t reflect.Type) string {
	if name, ok := g.names[t]; ok {
		return name
	}
	name := strings.TrimPrefix(t.Name(), "api")
	name = strings.ToUpper(name[:1]) + name[1:]
	for i := 2; g.defs[name] != nil; i++ {
		pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
		name = fmt.Sprintf("%s%s%s", strings.ToUpper(pkg[:1]), pkg[1:], name)
	}
	g.names[t], g.defs[name] = name, map[string]any{}
	props, required := map[string]any{}, []string{}
	g.fields(t, props, &required)
	g.defs[name] = map[string]any{"type": "object", "properties": props, "required": required, "additionalProperties": false}
	return name
}

func (g *shapes) fields(t reflect.Type, props map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			g.fields(f.Type, props, required)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		schema := g.of(f.Type)
		optional := strings.Contains(opts, "omitempty") || strings.Contains(opts, "omitzero")
		if maybe := f.Type.Kind() == reflect.Pointer || f.Type.Kind() == reflect.Slice || f.Type.Kind() == reflect.Map; maybe && !optional && f.Type != rawType {
			schema = nullable(schema)
		}
		if doc := f.Tag.Get("doc"); doc != "" && schema["$ref"] == nil {
			schema["description"] = doc
		}
		props[name] = schema
		if !optional {
			*required = append(*required, name)
		}
	}
}
