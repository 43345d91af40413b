package toolcalls

import (
	"encoding/json"
	"fmt"
)

// jsonTypes are JSON Schema's types of the data set's.
var jsonTypes = map[string]string{"integer": "integer", "number": "number", "float": "number", "string": "string", "boolean": "boolean", "bool": "boolean",
	"array": "array", "list": "array", "tuple": "array", "dict": "object", "object": "object", "any": "string"}

// openAI makes tool definitions of the data set's descriptions, in the order in
// which they have their fields.
//
// Source: ShishirPatil/gorilla 6ea5797, bfcl_eval/model_handler/utils.py
// (convert_to_tool, _cast_to_openai_type).
func openAI(functions json.RawMessage) (json.RawMessage, error) {
	v, err := ordered(functions)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []any
	for _, f := range list {
		o, ok := f.(object)
		params, isObject := o.get("parameters").(object)
		name, isText := o.get("name").(string)
		if !ok || !isObject || !isText {
			return nil, fmt.Errorf("a function is described without name or parameters")
		}
		params = params.set("type", "object")
		if props, ok := params.get("properties").(object); ok {
			params = params.set("properties", cast(props))
		}
		o = o.set("name", sent(name)).set("parameters", params)
		out = append(out, object{{"type", "function"}, {"function", o}})
	}
	return json.Marshal(out)
}

// cast translates the types of parameters.
func cast(props object) object {
	for i, m := range props {
		if p, ok := m.value.(object); ok {
			props[i].value = castOne(p)
		}
	}
	return props
}

func castOne(p object) object {
	typ, _ := p.get("type").(string)
	if typ == "float" {
		p = p.set("format", "float")
		description, _ := p.get("description").(string)
		p = p.set("description", description+" This is a float type value.")
	}
	to := jsonTypes[typ]
	if to == "" {
		to = "string"
	}
	p = p.set("type", to)
	if props, ok := p.get("properties").(object); ok {
		p = p.set("properties", cast(props))
	} else if items, ok := p.get("items").(object); ok {
		p = p.set("items", castItems(items))
	}
	return p
}

// castItems translates the type of items. Unlike of parameters, their descriptions
// stay as they are.
func castItems(items object) object {
	typ, _ := items.get("type").(string)
	if to := jsonTypes[typ]; to != "" {
		items = items.set("type", to)
	}
	if inner, ok := items.get("items").(object); ok {
		items = items.set("items", castItems(inner))
	}
	if props, ok := items.get("properties").(object); ok {
		items = items.set("properties", cast(props))
	}
	return items
}
