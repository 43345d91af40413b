package planner

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
)

// node is one field of a document, named as a person would: the elements of a
// list by what tells them apart, "runs.minimal.argv".
type node struct {
	path    string // from the root
	key     string // below its parent
	pattern string // as [spec.Covers] wants it
	v       reflect.Value
	kids    []*node
	up      *node
}

// tree is the document as named fields. Empty fields are left out.
func tree(p *spec.Plan) *node {
	root := &node{v: reflect.ValueOf(p).Elem()}
	root.grow()
	return root
}

func (n *node) child(key, pattern string, v reflect.Value) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if v.IsZero() && v.Kind() != reflect.Bool && v.Kind() != reflect.Float64 && v.Kind() != reflect.Int && v.Kind() != reflect.Int64 {
		return
	}
	k := &node{path: strings.TrimPrefix(n.path+"."+key, "."), key: key, pattern: strings.TrimPrefix(n.pattern+pattern, "."), v: v, up: n}
	n.kids = append(n.kids, k)
	k.grow()
}

func (n *node) grow() {
	switch {
	case n.v.Type() == reflect.TypeFor[time.Time]():
	case n.v.Kind() == reflect.Struct:
		for _, f := range reflect.VisibleFields(n.v.Type()) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && name != "" {
				n.child(name, "."+name, n.v.FieldByIndex(f.Index))
			}
		}
	case n.v.Kind() == reflect.Map:
		keys := n.v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			n.child(k.String(), "[]", n.v.MapIndex(k))
		}
	case n.v.Kind() == reflect.Slice && n.v.Type().Elem().Kind() == reflect.Struct:
		seen := map[string]bool{}
		for i := range n.v.Len() {
			key := elementKey(n.v.Index(i))
			if key == "" || seen[key] {
				key = strconv.Itoa(i)
			}
			seen[key] = true
			n.child(key, "[]", n.v.Index(i))
		}
	}
}

// elementKey is what tells an element of a list from the others.
func elementKey(v reflect.Value) string {
	for _, name := range []string{"ID", "Name", "Path", "Spec", "What", "Code", "SKU", "URL", "File"} {
		if f := v.FieldByName(name); f.IsValid() && f.Kind() == reflect.String && f.String() != "" && len(f.String()) <= 80 {
			return f.String()
		}
	}
	return ""
}

// leaf says that a node is a value: a scalar, a time, or a list of scalars.
func (n *node) leaf() bool {
	return n.v.Type() == reflect.TypeFor[time.Time]() || n.v.Kind() != reflect.Struct && n.v.Kind() != reflect.Map &&
		(n.v.Kind() != reflect.Slice || n.v.Type().Elem().Kind() != reflect.Struct)
}

// covered says that the hash covers a leaf.
func (n *node) covered() bool {
	return spec.Covers(n.pattern) || spec.Covers(n.pattern+"[]") || strings.HasPrefix(n.pattern, "environment.skus[].deviations[]")
}

func (n *node) leaves(visit func(*node)) {
	if n.leaf() {
		visit(n)
	}
	for _, k := range n.kids {
		k.leaves(visit)
	}
}

// get finds a field by its path. The deepest field that was found is returned
// where the rest of the path leads nowhere.
func (n *node) get(path string) (at *node, rest string) {
	if path == "" {
		return n, ""
	}
	var best *node
	for _, k := range n.kids {
		if (path == k.key || strings.HasPrefix(path, k.key+".")) && (best == nil || len(k.key) > len(best.key)) {
			best = k
		}
	}
	if best == nil {
		return n, path
	}
	return best.get(strings.TrimPrefix(strings.TrimPrefix(path, best.key), "."))
}

func (n *node) json() json.RawMessage {
	b, err := json.Marshal(n.v.Interface())
	if err != nil {
		return json.RawMessage(strconv.Quote(fmt.Sprint(n.v.Interface())))
	}
	return b
}
