package spec

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// execution is the part of a plan that changes what is executed or how its
// result is judged, and the only part that the hash covers: estimates,
// decisions, warnings, evidence and the author of the document may change
// without making it another plan. Every field is left out when it is empty, so
// that an empty list and a missing one, which the document does not tell
// apart, hash alike.
type execution struct {
	Schema      string           `json:"schema"`
	Repo        string           `json:"repo,omitempty"`
	Commit      string           `json:"commit,omitempty"`
	Subdir      string           `json:"subdir,omitempty"`
	Submodules  bool             `json:"submodules,omitempty"`
	Model       string           `json:"model,omitempty"`
	Revision    string           `json:"revision,omitempty"`
	Environment executionEnv     `json:"environment"`
	Runs        []executionRun   `json:"runs,omitempty"`
	Claims      []executionClaim `json:"claims,omitempty"`
	Suites      []Suite          `json:"suites,omitempty"`
	Bindings    []Binding        `json:"bindings,omitempty"`
}

type executionEnv struct {
	Manager        string   `json:"manager,omitempty"`
	Python         string   `json:"python,omitempty"`
	CUDA           string   `json:"cuda,omitempty"`
	Requirements   []string `json:"requirements,omitempty"`
	Indexes        []Index  `json:"indexes,omitempty"`
	SystemPackages []string `json:"system_packages,omitempty"`
	ExcludeNewer   string   `json:"exclude_newer,omitempty"`

	// The GPU model that the environment is made for, and what is changed for it.
	SKU        string      `json:"sku,omitempty"`
	Deviations []Deviation `json:"deviations,omitempty"`
}

type executionRun struct {
	ID           string            `json:"id"`
	Kind         string            `json:"kind"`
	Route        string            `json:"route,omitempty"`
	ClaimIDs     []string          `json:"claim_ids,omitempty"`
	Argv         []string          `json:"argv,omitempty"`
	Interpreter  string            `json:"interpreter,omitempty"`
	Script       string            `json:"script,omitempty"`
	Cwd          string            `json:"cwd,omitempty"`
	Setup        []Step            `json:"setup,omitempty"`
	Env          map[string]string `json:"env,omitempty"`
	Patches      []Patch           `json:"patches,omitempty"`
	Placeholders []string          `json:"placeholders,omitempty"`
	Assets       []Asset           `json:"assets,omitempty"`
	GPUs         int               `json:"gpus,omitempty"`
	Expects      *Expectation      `json:"expects,omitempty"`
	Collect      []Collect         `json:"collect,omitempty"`
	TimeoutS     int               `json:"timeout_s,omitempty"`
	Seeds        []int64           `json:"seeds,omitempty"`
}

// executionClaim is in the hash because the verdict depends on it.
type executionClaim struct {
	ID        string     `json:"id"`
	Metric    string     `json:"metric,omitempty"`
	Value     *float64   `json:"value,omitempty"`
	ValueLo   *float64   `json:"value_lo,omitempty"`
	ValueHi   *float64   `json:"value_hi,omitempty"`
	Unit      string     `json:"unit,omitempty"`
	Relation  string     `json:"relation,omitempty"`
	Baseline  string     `json:"baseline,omitempty"`
	Dataset   string     `json:"dataset,omitempty"`
	Direction string     `json:"direction,omitempty"`
	Tolerance *Tolerance `json:"tolerance,omitempty"`
	Checkable string     `json:"checkable,omitempty"`
}

// ComputeHash returns the SHA-256, in lower-case hex, of what the plan
// executes and judges: source, environment, selected runs, claims and suites.
// Runs that are not selected do not count. A plan that [Plan.Validate] refuses
// may have no JSON form (a number that is not finite); its hash then says
// nothing but that.
func (p *Plan) ComputeHash() string {
	e := execution{
		Schema: p.Schema, Repo: p.Source.Repo, Commit: p.Source.Commit,
		Subdir: p.Source.Subdir, Submodules: p.Source.Submodules,
		Environment: executionEnv{
			Manager: p.Environment.Manager, Python: p.Environment.Python.Version,
			CUDA: p.Environment.CUDA.Version, SystemPackages: p.Environment.SystemPackages,
		},
	}
	if p.Model != nil {
		e.Model, e.Revision = located(p.Model.ID, p.Model.Revision), p.Model.Revision
	}
	for _, r := range p.Environment.Requirements {
		e.Environment.Requirements = append(e.Environment.Requirements, r.Spec)
	}
	for _, x := range p.Environment.Indexes {
		e.Environment.Indexes = append(e.Environment.Indexes, Index{URL: x.URL, Kind: x.Kind})
	}
	if e.Environment.SKU = p.Environment.SKU; e.Environment.SKU != "" {
		for _, d := range p.Environment.SKUs[p.Environment.SKU].Deviations {
			d.Reason = ""
			e.Environment.Deviations = append(e.Environment.Deviations, d)
		}
	}
	// Not where somebody keeps it, but what it is.
	for _, b := range p.Bindings {
		e.Bindings = append(e.Bindings, Binding{Kind: b.Kind, Name: b.Name, Value: b.Value, URL: b.URL, SHA256: b.SHA256, Place: b.Place, Runs: b.Runs})
	}
	if t := p.Environment.ExcludeNewer; t != nil {
		e.Environment.ExcludeNewer = t.UTC().Format(time.RFC3339Nano)
	}
	for i := range p.Runs {
		if p.Runs[i].Selected {
			e.Runs = append(e.Runs, executionOf(&p.Runs[i]))
		}
	}
	for _, c := range p.Claims {
		e.Claims = append(e.Claims, executionClaim{
			ID: c.ID, Metric: c.Metric, Value: c.Value, ValueLo: c.ValueLo, ValueHi: c.ValueHi, Unit: c.Unit,
			Relation: c.Relation, Baseline: c.Baseline, Dataset: c.Dataset, Direction: c.Direction,
			Tolerance: width(c.Tolerance), Checkable: c.Checkable,
		})
	}
	for _, s := range p.Suites {
		if s.Kind == "accuracy" && !s.Selected {
			continue
		}
		s.Status, s.Reasons, s.Outlook, s.Settings = "", nil, nil, nil
		s.Arms = slices.Clone(s.Arms)
		if len(s.Arms) == 0 {
			s.Arms = nil
		}
		for i := range s.Arms {
			s.Arms[i].Model = located(s.Arms[i].Model, s.Arms[i].Revision)
		}
		e.Suites = append(e.Suites, s)
	}
	// Struct order is fixed and map keys are sorted by encoding/json, so the
	// bytes are canonical.
	b, err := json.Marshal(e)
	if err != nil {
		b = []byte("unencodable: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// located is a model as the hash has it: one in a folder is known by its content,
// wherever it lies.
func located(id, revision string) string {
	if strings.HasPrefix(id, "/") && revision != "" {
		return ""
	}
	return id
}

func executionOf(r *Run) executionRun {
	x := executionRun{
		ID: r.ID, Kind: r.Kind, Route: r.Route, ClaimIDs: r.ClaimIDs, Argv: r.Argv, Cwd: r.Cwd, Setup: r.Setup, Env: r.Env,
		Placeholders: r.Placeholders, GPUs: r.GPUs.Min, Collect: r.Collect, TimeoutS: r.TimeoutS, Seeds: r.Seeds,
	}
	if r.Script != nil {
		x.Interpreter, x.Script = r.Script.Interpreter, r.Script.Text
	}
	for _, p := range r.Patches {
		p.Reason = ""
		x.Patches = append(x.Patches, p)
	}
	for _, a := range r.Assets {
		x.Assets = append(x.Assets, Asset{Kind: a.Kind, Name: a.Name, URL: a.URL})
	}
	if r.Expects != nil {
		e := *r.Expects
		e.Tolerance = width(e.Tolerance)
		x.Expects = &e
	}
	return x
}

// width is a tolerance without where it was read.
func width(t *Tolerance) *Tolerance {
	if t == nil {
		return nil
	}
	return &Tolerance{Value: t.Value, Kind: t.Kind}
}

// Seal sets the schema and the hash.
func (p *Plan) Seal() {
	p.Schema = SchemaV1
	p.Hash = p.ComputeHash()
}

// Encode writes the plan as indented JSON with a final newline.
func (p *Plan) Encode(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p); err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	return nil
}

// MaxBytes bounds the size of a plan document that Decode reads.
const MaxBytes = 32 << 20

// Decode reads one plan, refusing unknown fields, trailing data and documents
// that [Plan.Validate] refuses. A hash that does not fit is not an error here:
// a hand-edited plan is legal, and the caller decides whether to reseal it.
func Decode(r io.Reader) (*Plan, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("read plan: larger than %d bytes", MaxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var p Plan
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode plan: data after the document")
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &p, nil
}
