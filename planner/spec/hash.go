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
)

// execution is the part of a plan that changes what is executed, and the only
// part that the hash covers: estimates, decisions, warnings, evidence and the
// author of the document may change without making it another plan.
type execution struct {
	Schema      string           `json:"schema"`
	Repo        string           `json:"repo"`
	Commit      string           `json:"commit"`
	Subdir      string           `json:"subdir"`
	Submodules  bool             `json:"submodules"`
	Model       string           `json:"model"`
	Revision    string           `json:"revision"`
	Environment executionEnv     `json:"environment"`
	Runs        []executionRun   `json:"runs"`
	Claims      []executionClaim `json:"claims"`
	Suites      []Suite          `json:"suites"`
}

type executionEnv struct {
	Manager        string   `json:"manager"`
	Python         string   `json:"python"`
	CUDA           string   `json:"cuda"`
	Requirements   []string `json:"requirements"`
	SystemPackages []string `json:"system_packages"`
	ExcludeNewer   string   `json:"exclude_newer"`
}

type executionRun struct {
	ID           string            `json:"id"`
	Kind         string            `json:"kind"`
	Argv         []string          `json:"argv"`
	Script       *Script           `json:"script"`
	Cwd          string            `json:"cwd"`
	Setup        []Step            `json:"setup"`
	Env          map[string]string `json:"env"`
	Patches      []Patch           `json:"patches"`
	Placeholders []string          `json:"placeholders"`
	Assets       []Asset           `json:"assets"`
	GPUs         int               `json:"gpus"`
	Collect      []Collect         `json:"collect"`
	TimeoutS     int               `json:"timeout_s"`
	Seeds        []int64           `json:"seeds"`
}

// executionClaim is in the hash because the verdict depends on it.
type executionClaim struct {
	ID        string     `json:"id"`
	Metric    string     `json:"metric"`
	Value     *float64   `json:"value"`
	ValueLo   *float64   `json:"value_lo"`
	ValueHi   *float64   `json:"value_hi"`
	Relation  string     `json:"relation"`
	Baseline  string     `json:"baseline"`
	Direction string     `json:"direction"`
	Tolerance *Tolerance `json:"tolerance"`
}

// ComputeHash returns the SHA-256, in lower-case hex, of what the plan
// executes: source, environment, selected runs, claims and suites. Runs that
// are not selected do not count.
func (p *Plan) ComputeHash() string {
	e := execution{
		Schema: p.Schema, Repo: p.Source.Repo, Commit: p.Source.Commit,
		Subdir: p.Source.Subdir, Submodules: p.Source.Submodules,
		Environment: executionEnv{
			Manager: p.Environment.Manager, Python: p.Environment.Python.Version,
			CUDA: p.Environment.CUDA.Version, SystemPackages: p.Environment.SystemPackages,
		},
		Suites: p.Suites,
	}
	if p.Model != nil {
		e.Model, e.Revision = p.Model.ID, p.Model.Revision
	}
	for _, r := range p.Environment.Requirements {
		e.Environment.Requirements = append(e.Environment.Requirements, r.Spec)
	}
	if t := p.Environment.ExcludeNewer; t != nil {
		e.Environment.ExcludeNewer = t.UTC().Format("2006-01-02T15:04:05Z")
	}
	for _, r := range p.Runs {
		if !r.Selected {
			continue
		}
		patches := slices.Clone(r.Patches)
		for i := range patches {
			patches[i].Reason = ""
		}
		e.Runs = append(e.Runs, executionRun{
			ID: r.ID, Kind: r.Kind, Argv: r.Argv, Script: r.Script, Cwd: r.Cwd, Setup: r.Setup,
			Env: r.Env, Patches: patches, Placeholders: r.Placeholders, Assets: r.Assets,
			GPUs: r.GPUs.Min, Collect: r.Collect, TimeoutS: r.TimeoutS, Seeds: r.Seeds,
		})
	}
	for _, c := range p.Claims {
		e.Claims = append(e.Claims, executionClaim{
			ID: c.ID, Metric: c.Metric, Value: c.Value, ValueLo: c.ValueLo, ValueHi: c.ValueHi,
			Relation: c.Relation, Baseline: c.Baseline, Direction: c.Direction, Tolerance: c.Tolerance,
		})
	}
	// Struct order is fixed and map keys are sorted by encoding/json, so the
	// bytes are canonical.
	b, err := json.Marshal(e)
	if err != nil {
		// Only Sampling, a map of JSON values, could fail, and only if code put
		// something into it that is not JSON; Validate refuses such a plan.
		b = []byte("unencodable: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
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
