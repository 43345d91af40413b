package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
)

// editView is the page on which a plan is changed.
type editView struct {
	store.Run
	Plan    *planView
	Text    string
	Groups  []diffGroup
	Same    bool // both execute and judge the same
	Edited  bool
	HashA   string
	HashB   string
	Token   string
	SKUs    []string
	Problem *problem
}

type diffGroup struct {
	Title   string
	Changes []diffLine
}

type diffLine struct{ Field, A, B string }

func (s *Server) planPage(c *call) error {
	run, p, err := c.runPlan()
	if err != nil {
		return err
	}
	v, err := c.editView(run, p, p)
	if err != nil {
		return err
	}
	return c.render(http.StatusOK, "plan.html", "Plan", "runs", v)
}

func (c *call) runPlan() (store.Run, *spec.Plan, error) {
	run, err := c.run()
	if err != nil {
		return run, nil, err
	}
	p, err := c.s.cfg.Runner.Plan(c.r.Context(), run.ID)
	return run, p, err
}

func (c *call) editView(run store.Run, base, edited *spec.Plan) (*editView, error) {
	text, err := json.MarshalIndent(edited, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	v := &editView{Run: run, Plan: viewPlan(edited), Text: visible(string(text)), Token: c.s.token(), SKUs: skuIDs()}
	if base != edited {
		d := planner.Diff(base, edited)
		v.Edited, v.Same, v.HashA, v.HashB = true, d.SameHash, d.HashA, d.HashB
		v.Groups = diffGroups(d)
	}
	return v, nil
}

// visible writes the characters that turn text around, or are not seen, as JSON
// escapes, so that a document shows what it says and says the same.
func visible(doc string) string {
	var b strings.Builder
	for _, r := range doc {
		if r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func diffGroups(d planner.Differences) (out []diffGroup) {
	for _, g := range [][2]string{{"execution", "what is executed"}, {"verdict", "how the result is judged"}, {"cost", "what it costs"}, {"wording", "wording alone"}} {
		x := diffGroup{Title: g[1]}
		for _, ch := range d.Changes {
			if ch.Group == g[0] {
				x.Changes = append(x.Changes, diffLine{clean(ch.Field), shorten(ch.A), shorten(ch.B)})
			}
		}
		if len(x.Changes) > 0 {
			out = append(out, x)
		}
	}
	return out
}

func shorten(b []byte) string {
	s := clean(string(b))
	if len(s) > 1000 {
		s = strings.ToValidUTF8(s[:1000], "") + " …"
	}
	return s
}

// planForm takes an edited plan: it shows what the edit changes, or with
// "run" makes a run of it that takes the place of this one.
func (s *Server) planForm(c *call) error {
	run, base, err := c.runPlan()
	if err != nil {
		return err
	}
	if err := c.r.ParseForm(); err != nil {
		return badForm(err)
	}
	f := c.r.PostForm
	edited, err := applyEdit(base, f.Get("plan"), f)
	if err != nil {
		p := s.explain(c.r, err)
		v, verr := c.editView(run, base, base)
		if verr != nil {
			return verr
		}
		v.Problem, v.Text = p, firstOf(f.Get("plan"), v.Text)
		return c.render(p.Status, "plan.html", "Plan", "runs", v)
	}
	if f.Get("do") == "run" {
		body, err := json.Marshal(edited)
		if err != nil {
			return fmt.Errorf("encode plan: %w", err)
		}
		sub := &submission{Plan: body, Supersedes: run.ID, Queue: c.queueOf(run.ID)}
		if run.State.Final() {
			sub.Supersedes = "" // it stays as it is; what it may contact is checked against nothing
		}
		made, _, err := c.create(sub, f.Get("token"))
		if err != nil {
			return err
		}
		return c.redirect("/runs/" + made.ID)
	}
	v, err := c.editView(run, base, edited)
	if err != nil {
		return err
	}
	return c.render(http.StatusOK, "plan.html", "Plan", "runs", v)
}

func (c *call) queueOf(runID string) string {
	if sub, err := c.s.cfg.Store.Submission(c.r.Context(), runID); err == nil && c.id.Queue(sub.Queue) {
		return sub.Queue
	}
	return ""
}

// applyEdit makes the plan that a form describes: the document as typed, with
// the fields beside it over it.
func applyEdit(base *spec.Plan, text string, f map[string][]string) (*spec.Plan, error) {
	get := func(k string) string {
		if v := f[k]; len(v) > 0 {
			return strings.TrimSpace(v[0])
		}
		return ""
	}
	if text == "" {
		b, err := json.Marshal(base)
		if err != nil {
			return nil, fmt.Errorf("encode plan: %w", err)
		}
		text = string(b)
	}
	p, err := spec.Decode(bytes.NewReader([]byte(text)))
	if err != nil {
		return nil, problemf(http.StatusUnprocessableEntity, "correct the document; its JSON Schema is at /v1/schemas/plan", "the plan cannot be read: %v", err)
	}
	if f["chosen"] != nil { // the form's list of runs was sent
		for i := range p.Runs {
			p.Runs[i].Selected = slices.Contains(f["run"], p.Runs[i].ID)
		}
	}
	if sku := get("sku"); sku != "" && sku != p.Environment.SKU {
		if err := planner.ForSKU(p, sku); err != nil {
			return nil, err
		}
	}
	if v := get("seeds"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1000 {
			return nil, problemf(http.StatusUnprocessableEntity, "give a whole number from 1 to 1000", "seeds is %q", v)
		}
		if err := planner.Seeds(p, n); err != nil {
			return nil, err
		}
	}
	if v := get("timeout_min"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 100_000 {
			return nil, problemf(http.StatusUnprocessableEntity, "give whole minutes", "the time limit is %q", v)
		}
		for i := range p.Runs {
			if p.Runs[i].Selected {
				p.Runs[i].TimeoutS = 60 * n
			}
		}
	}
	p.Seal()
	if err := p.Validate(); err != nil {
		return nil, problemf(http.StatusUnprocessableEntity, "correct the document", "the plan cannot be run: %v", err)
	}
	return p, nil
}

// planFile gives the document as it is stored.
func (s *Server) planFile(c *call) error {
	run, err := c.run()
	if err != nil {
		return err
	}
	b, err := s.cfg.Store.Document(c.r.Context(), run.ID, "plan")
	if err != nil {
		return err
	}
	return c.file("application/json", "plan-"+run.ID+".json", b)
}
