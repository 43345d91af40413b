package runner

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

func TestOverNodes(t *testing.T) {
	s := spec.Suite{Arms: []spec.Arm{{Name: "fp8"}, {Name: "nvfp4", SKU: "small"}}}
	nodes := func(sku string) int { return map[string]int{"h200": 8, "small": 4}[sku] }
	for name, tc := range map[string]struct {
		gpus []int
		sku  string
		want string
	}{
		"both fit":          {[]int{8, 4}, "h200", ""},
		"two nodes":         {[]int{16, 4}, "h200", "arm fp8 takes 16 GPUs and a node has 8, so no pod holds it: serve it over 2 nodes"},
		"of its own model":  {[]int{8, 8}, "h200", "arm nvfp4 takes 8 GPUs and a node has 4"},
		"nothing is known":  {[]int{16, 4}, "other", ""},
		"no model is named": {[]int{16, 4}, "", ""},
	} {
		servers := []Sidecar{{Arm: "fp8", GPUs: tc.gpus[0]}, {Arm: "nvfp4", GPUs: tc.gpus[1]}}
		if got := OverNodes(s, servers, tc.sku, nodes); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
