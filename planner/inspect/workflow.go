package inspect

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

// workflow reads the "run" steps of a continuous integration file as blocks.
func workflow(src string) *markdown.Doc {
	doc := &markdown.Doc{}
	root := parseYAML(src)
	visit(root, 0, func(key string, n *yaml.Node) {
		if key != "run" || n.Kind != yaml.ScalarNode {
			return
		}
		line := n.Line
		if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			line++
		}
		doc.Blocks = append(doc.Blocks, markdown.Block{Kind: markdown.Fenced, Lang: "sh", Line: line, Text: strings.Split(strings.TrimRight(n.Value, "\n"), "\n")})
	})
	return doc
}

// parseYAML returns the root node, or nil where src is not YAML. Nodes are
// never decoded into values, so aliases are not expanded.
func parseYAML(src string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(src), &doc); err != nil || len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// visit calls f for every value of a mapping below n.
func visit(n *yaml.Node, depth int, f func(key string, n *yaml.Node)) {
	if n == nil || depth > 100 {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			f(n.Content[i].Value, n.Content[i+1])
			visit(n.Content[i+1], depth+1, f)
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			visit(c, depth+1, f)
		}
	}
}

// member is the value of a key of a mapping, or nil.
func member(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
