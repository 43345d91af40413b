package openai

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		content, want string
		fails         bool
	}{
		{`"a"`, "a", false},
		{`null`, "", false},
		{``, "", false},
		{`[{"type":"text","text":"a"},{"text":"b"}]`, "ab", false},
		{`[{"type":"text","text":"a"},{"type":"image_url"}]`, "a", true},
		{`5`, "", true},
	} {
		m := Message{Content: json.RawMessage(c.content)}
		if got, err := m.Text(); got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %q, %v", c.content, got, err)
		}
	}
}

// TestPage writes each kind of sample as Prometheus reads it.
func TestPage(t *testing.T) {
	p := NewPage(`m"1`)
	p.One("a", "gauge", "A.", 1.5)
	p.Labelled("b_total", "counter", "B.", "reason", []string{"x", "y"}, func(v string) float64 { return float64(len(v)) })
	p.Info("c_info", "C.", `k="v"`)
	p.Histogram("d", "D.", []float64{1, 2}, []int64{3, 0, 4}, 12.5, 7)
	w := httptest.NewRecorder()
	p.Serve(w)
	const labels = `engine="0",model_name="m\"1"`
	want := []string{
		"# HELP a A.", "# TYPE a gauge", "a{" + labels + "} 1.5",
		"# HELP b_total B.", "# TYPE b_total counter", "b_total{" + labels + `,reason="x"} 1`, "b_total{" + labels + `,reason="y"} 1`,
		"# HELP c_info C.", "# TYPE c_info gauge", `c_info{k="v"} 1`,
		"# HELP d D.", "# TYPE d histogram", "d_bucket{" + labels + `,le="1"} 3`, "d_bucket{" + labels + `,le="2"} 3`, "d_bucket{" + labels + `,le="+Inf"} 7`,
		"d_count{" + labels + "} 7", "d_sum{" + labels + "} 12.5",
	}
	if got := strings.Split(strings.TrimSpace(w.Body.String()), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", w.Body)
	}
}
