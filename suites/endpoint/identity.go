package endpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Identity is what is known of a model server: the one type for suites, load
// measurements, clusters and nightly runs. What could not be observed is zero.
type Identity struct {
	Engine      string    `json:"engine,omitempty"` // vllm, sglang, …
	Version     string    `json:"version,omitempty"`
	Model       string    `json:"model,omitempty"` // as it is served
	Root        string    `json:"root,omitempty"`  // what is served under that name, where the server says so
	Revision    string    `json:"revision,omitempty"`
	WeightsSHA  string    `json:"weights_sha,omitempty"`
	StartTime   time.Time `json:"start_time,omitzero"`
	Kernel      string    `json:"kernel,omitempty"`
	KVDtype     string    `json:"kv_dtype,omitempty"`
	GPUUUIDs    []string  `json:"gpu_uuids,omitempty"`
	Driver      string    `json:"driver,omitempty"`
	MaxModelLen int       `json:"max_model_len,omitempty"` // tokens of prompt and answer together
	KVTokens    int64     `json:"kv_tokens,omitempty"`     // size of the KV pool
}

// ID is a short hash of the identity, 12 hex digits; it joins the servers table.
func (i Identity) ID() string {
	b, err := json.Marshal(i)
	if err != nil { // strings, numbers and a time always marshal
		panic(fmt.Sprintf("marshal identity: %v", err))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// Simulated reports whether the server says of itself that it is a simulation:
// what is measured on it says nothing of a model.
func (i Identity) Simulated() bool { return strings.HasSuffix(i.Version, "+simulated") }

// Change is how one observation of a server differs from an earlier one.
type Change struct {
	Fields []string `json:"fields,omitempty"` // "model: a → b"
	// Material is set where answers before and after do not come from the same
	// system: another engine, version, model, weights, kernel or cache format.
	// Otherwise the process was only started again, which leaves accuracy as it is
	// but voids what is measured of speed.
	Material bool `json:"material,omitempty"`
}

// Changed reports whether anything differs.
func (c Change) Changed() bool { return len(c.Fields) > 0 }

func (c Change) String() string { return strings.Join(c.Fields, ", ") }

// Since compares i with an earlier observation. What either does not know is no
// difference: a server that hides something has not changed.
func (i Identity) Since(before Identity) Change {
	var c Change
	diff := func(name, a, b string, material bool) {
		if a != "" && b != "" && a != b {
			c.Fields = append(c.Fields, fmt.Sprintf("%s: %s → %s", name, a, b))
			c.Material = c.Material || material
		}
	}
	diff("engine", before.Engine, i.Engine, true)
	diff("version", before.Version, i.Version, true)
	diff("model", before.Model, i.Model, true)
	diff("root", before.Root, i.Root, true)
	diff("revision", before.Revision, i.Revision, true)
	diff("weights", before.WeightsSHA, i.WeightsSHA, true)
	diff("kernel", before.Kernel, i.Kernel, true)
	diff("kv_dtype", before.KVDtype, i.KVDtype, true)
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	diff("max_model_len", number(before.MaxModelLen), number(i.MaxModelLen), true)
	diff("driver", before.Driver, i.Driver, false)
	if !before.StartTime.IsZero() && !i.StartTime.IsZero() {
		// The clock of a metrics page has a grain.
		if d := i.StartTime.Sub(before.StartTime); d > 2*time.Second || d < -2*time.Second {
			diff("start_time", before.StartTime.UTC().Format(time.RFC3339), i.StartTime.UTC().Format(time.RFC3339), false)
		}
	}
	a, b := slices.Sorted(slices.Values(before.GPUUUIDs)), slices.Sorted(slices.Values(i.GPUUUIDs))
	diff("gpus", strings.Join(a, ","), strings.Join(b, ","), false)
	return c
}

// listed is a model of GET /v1/models. vLLM and SGLang add root and
// max_model_len.
type listed struct {
	ID          string `json:"id"`
	Root        string `json:"root"`
	OwnedBy     string `json:"owned_by"`
	MaxModelLen int    `json:"max_model_len"`
}

func (c *Client) models(ctx context.Context) ([]listed, error) {
	var j struct {
		Data []listed `json:"data"`
	}
	if err := c.get(ctx, c.base+"/models", &j); err != nil {
		return nil, err
	}
	return j.Data, nil
}

// Models returns the names of the models that the server lists.
func (c *Client) Models(ctx context.Context) ([]string, error) {
	list, err := c.models(ctx)
	var out []string
	for _, m := range list {
		out = append(out, m.ID)
	}
	return out, err
}

// served is the model that is asked.
func (c *Client) served(ctx context.Context) (string, error) {
	if c.c.Model != "" {
		return c.c.Model, nil
	}
	if m := c.model.Load(); m != nil {
		return *m, nil
	}
	names, err := c.Models(ctx)
	switch {
	case err != nil:
		return "", err
	case len(names) != 1:
		return "", &ConfigError{fmt.Sprintf("endpoint %s serves %d models: %s", c.base, len(names), clipped(strings.Join(names, ", "))), "say which one is meant"}
	}
	c.model.Store(&names[0])
	return names[0], nil
}

// Identity reads what the server says of itself: /v1/models, and of vLLM /version
// and /metrics, of SGLang /get_server_info. The error says that the server could
// not be seen at all.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	list, err := c.models(ctx)
	var e *Error
	// Not every server lists its models, and some fail to (HTTP 500) while they
	// serve them.
	if err != nil && !(errors.As(err, &e) && (e.Kind == Unknown || e.Status == http.StatusInternalServerError)) {
		return Identity{}, err
	}
	id := Identity{Model: c.c.Model}
	if len(list) > 0 && !slices.ContainsFunc(list, func(m listed) bool { return m.ID == id.Model }) {
		// Another model than the one that is asked for, or whatever there is.
		var names []string
		for _, m := range list {
			names = append(names, clipped(m.ID))
		}
		id.Model = strings.Join(names, ",")
	}
	for _, m := range list {
		if m.ID != c.c.Model && !(c.c.Model == "" && len(list) == 1) {
			continue
		}
		id.Model, id.MaxModelLen = m.ID, m.MaxModelLen
		if m.Root != m.ID {
			id.Root = m.Root
		}
		if m.OwnedBy == "vllm" || m.OwnedBy == "sglang" || m.OwnedBy == "repromill" {
			id.Engine = m.OwnedBy
		}
	}
	var version struct {
		Version string `json:"version"`
	}
	if c.get(ctx, c.root+"/version", &version) == nil && version.Version != "" {
		id.Version = clipped(version.Version)
	}
	var info struct {
		Version   string `json:"version"`
		ModelPath string `json:"model_path"`
		KVDtype   string `json:"kv_cache_dtype"`
		Revision  string `json:"revision"`
	}
	if id.Engine == "sglang" && c.get(ctx, c.root+"/get_server_info", &info) == nil {
		id.Version, id.Root, id.KVDtype, id.Revision = clipped(info.Version), clipped(info.ModelPath), clipped(info.KVDtype), clipped(info.Revision)
	}
	if m, err := c.Metrics(ctx); err == nil {
		m.describe(&id)
	}
	return id, nil
}

// Tokenize returns how many tokens the served model makes of a text, special
// tokens left out (vLLM's POST /tokenize).
func (c *Client) Tokenize(ctx context.Context, text string) (int, error) {
	model, err := c.served(ctx)
	if err != nil {
		return 0, err
	}
	var j struct {
		Count *int `json:"count"`
	}
	if err := c.post(ctx, c.root+"/tokenize", map[string]any{"model": model, "prompt": text, "add_special_tokens": false}, &j); err != nil {
		return 0, err
	}
	if j.Count == nil || *j.Count < 0 {
		return 0, &Error{Kind: Malformed, URL: c.base, Detail: "/tokenize gives no count"}
	}
	return *j.Count, nil
}
