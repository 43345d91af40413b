package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// inspection is what `inspect --json` prints.
type inspection struct {
	Model    string `json:"model"`
	Revision string `json:"revision,omitempty"`
	URL      string `json:"url,omitempty"`
	From     string `json:"from"` // hub, folder or config
	Access   string `json:"access,omitempty"`

	Facts      []inspectFact       `json:"facts"`
	Absent     []string            `json:"absent,omitempty"` // what could not be read, and what is not known for that
	Structure  *model.Model        `json:"structure"`
	Groups     []model.Group       `json:"groups"`
	RunsOn     []inspectPath       `json:"runs_on"`
	Memory     []inspectMemory     `json:"memory"`
	Generation json.RawMessage     `json:"generation_config,omitempty"`
	Flags      []model.Advice      `json:"serving_flags,omitempty"`
	Claims     []model.Check       `json:"claims"`
	Problems   []model.Problem     `json:"problems"`
	Weights    *inspectWeightsPart `json:"weights,omitempty"`
	Traffic    *inspectTraffic     `json:"traffic,omitempty"`

	known  *model.Known
	said   []model.Claim // by name, hub and card
	shards *model.Checkpoint
}

// inspectFact is one fact with its kind: measured, published, derived or
// assumed.
type inspectFact struct {
	Name   string `json:"name"`
	Value  any    `json:"value"`
	Unit   string `json:"unit,omitempty"`
	Kind   string `json:"kind"`
	Source string `json:"source"`
}

// inspectPath is what one format of the model runs as on one GPU.
type inspectPath struct {
	SKU     string       `json:"sku"`
	Weights model.Format `json:"weights"`
	Algo    string       `json:"algo,omitempty"`
	Params  int64        `json:"params"`
	model.Path
}

// inspectMemory is what one sequence keeps on one GPU that holds all heads.
type inspectMemory struct {
	Tokens     int64  `json:"tokens"`
	KVBytes    int64  `json:"kv_bytes"`
	StateBytes int64  `json:"state_bytes"`
	KVFormat   string `json:"kv_format"`
}

type inspectTraffic struct {
	Requests int64 `json:"requests"`
	Bytes    int64 `json:"bytes"`
}

// facts reads configuration and headers.
func (s *subject) facts(ctx context.Context, configOnly bool) (*inspection, error) {
	r := &inspection{
		Model: s.ID, Revision: s.Revision, URL: s.URL, From: s.From, Access: s.Access,
		Absent: s.Warnings, Problems: []model.Problem{}, Claims: []model.Check{},
	}
	m, err := s.parse(ctx)
	if err != nil {
		return nil, err
	}
	r.known = &model.Known{Model: m}
	r.Structure = m
	if s.Source != nil && !configOnly {
		if err := s.headers(ctx, r); err != nil {
			return nil, err
		}
	} else {
		r.absent("the headers of the weights were not read: sizes and formats are those that the configuration describes")
	}
	r.Groups = r.known.Groups()
	if g, err := s.read(ctx, "generation_config.json", 1<<20); err == nil && json.Valid(g) {
		r.Generation = g
	}
	r.known.Licence = s.licenceText(ctx)
	card := model.ReadCard(s.Card)
	r.said = slices.Concat(model.NameClaims(s.ID), s.Claims, card.Claims)
	if len(s.Card) == 0 && s.From != "config" {
		r.absent("there is no card (README.md): its claims could not be checked")
	}
	r.Flags = model.ServingAdvice(m, card, m.RemoteCode)
	r.describe(s, card)
	r.memory()
	if s.Hub != nil {
		n, bytes := s.Hub.Traffic()
		r.Traffic = &inspectTraffic{n, bytes}
	}
	return r, nil
}

func (r *inspection) absent(text string) { r.Absent = append(r.Absent, text) }

// parse reads the configuration alone.
func (s *subject) parse(ctx context.Context) (*model.Model, error) {
	in := model.Input{ID: s.ID, Config: s.Config}
	if s.Source == nil {
		return model.Parse(in)
	}
	var err error
	if in.Config, err = s.read(ctx, "config.json", model.MaxConfig+1); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usererrf("name a model in the format of transformers", "%s has no config.json", s.ID)
		}
		return nil, err
	}
	if in.HFQuant, err = s.read(ctx, "hf_quant_config.json", model.MaxConfig+1); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return model.Parse(in)
}

// headers reads the headers of all files of weights.
func (s *subject) headers(ctx context.Context, r *inspection) error {
	c, err := model.ReadCheckpoint(ctx, s.Source, model.CheckpointConfig{
		ID: s.ID, Files: s.Names, Header: model.HeaderConfig{Prefetch: 8 << 10},
	})
	var bad *model.BadHeaderError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why := "there is no safetensors file"
		if s.Hub != nil && slices.ContainsFunc(s.Names, func(n string) bool { return strings.HasSuffix(n, ".safetensors") }) {
			why = "the files of weights cannot be had"
		}
		if s.pickles() {
			why += "; the weights are pickles, which run code when they are loaded and are never opened"
		}
		r.absent(why + ": sizes and formats are those that the configuration describes")
		return nil
	case errors.As(err, &bad):
		r.Problems = append(r.Problems, model.Problem{Code: "checkpoint_damaged", Where: "safetensors", Message: bad.Why})
		return nil
	case err != nil:
		return err
	}
	if len(c.Shards) == 0 {
		r.absent("no header of the weights could be read: sizes and formats are those that the configuration describes")
		if s.Hub == nil || len(c.Problems) > 0 && c.Problems[0].Code != "shard_missing" {
			r.Problems = append(r.Problems, c.Problems...)
		}
		return nil
	}
	r.Problems = append(r.Problems, c.Problems...)
	r.shards = c
	if c.Complete() {
		r.known.Census = c.Census
		return nil
	}
	r.absent("some files of weights are missing or damaged: sizes and formats are those that the configuration describes")
	return nil
}

func (s *subject) pickles() bool {
	return slices.ContainsFunc(s.Names, func(n string) bool {
		return strings.HasSuffix(n, ".bin") && !strings.HasPrefix(n, "training_args") || strings.HasSuffix(n, ".pt") || strings.HasSuffix(n, ".pth")
	})
}

// licenceText recognises the text of a licence beside the weights.
func (s *subject) licenceText(ctx context.Context) string {
	for _, name := range []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"} {
		b, err := s.read(ctx, name, 64<<10)
		if err != nil {
			continue
		}
		return model.RecogniseLicence(b)
	}
	return ""
}

// describe lists the facts with kind and source.
func (r *inspection) describe(s *subject, card *model.Card) {
	m := r.known.Model
	add := func(name string, value any, unit, kind, source string) {
		r.Facts = append(r.Facts, inspectFact{name, value, unit, kind, source})
	}
	total, from := r.known.Params()
	kind, source, _ := strings.Cut(from, ": ")
	add("parameters_total", total, "", kind, source)
	guess := "derived"
	if slices.ContainsFunc(m.Warnings, func(w model.Warning) bool { return w.Code == "unknown_architecture" }) {
		guess = "assumed"
	}
	add("parameters_active", m.Params.Active, "", guess, "config.json")
	add("parameters_compute", m.Params.Compute, "", guess, "config.json: active without the input embedding")
	switch {
	case r.known.Census != nil:
		add("bytes", r.known.Census.Bytes, "B", "measured", "safetensors headers")
	case m.Bytes > 0:
		add("bytes", m.Bytes, "B", guess, "config.json")
	}
	add("kv_elements_per_token", m.Cache.PerToken(), "", guess, "config.json")
	add("state_bytes_per_sequence", m.Cache.StateBytes(2), "B", guess, "config.json")
	if m.Context > 0 {
		add("context", m.Context, "token", "published", "config.json: max_position_embeddings")
	}
	if m.Quant != nil && m.Quant.KV != "" {
		add("kv_format", string(m.Quant.KV), "", "published", m.Quant.Source)
	}
	if licence, from := firstOf(s.Licence, card.Licence), "hub"; licence != "" {
		if s.Licence == "" {
			from = "README.md"
		}
		add("licence", licence, "", "published", from)
	}
	if base := slices.Concat(s.Base, card.Base); len(base) > 0 {
		add("base_model", base[0], "", "published", "README.md")
	}
	if m.Claims != "" {
		add("name_claims", m.Claims, "", "published", "name")
	}
}

// memory is the cache of one sequence at usual lengths.
func (r *inspection) memory() {
	m := r.known.Model
	format, bits := "bf16", int64(16)
	if m.Quant != nil && m.Quant.KV != "" {
		format, bits = string(m.Quant.KV), 8
		if m.Quant.KV == model.FormatNVFP4 {
			bits = 4
		}
	}
	lengths := []int64{1, 8192, 32768, 131072}
	if m.Context > 0 {
		lengths = append(lengths, int64(m.Context))
	}
	slices.Sort(lengths)
	for _, n := range slices.Compact(lengths) {
		if m.Context > 0 && n > int64(m.Context) {
			continue
		}
		r.Memory = append(r.Memory, inspectMemory{n, m.Cache.At(n, 1) * bits / 8, m.Cache.StateBytes(2), format})
	}
}

// runsOn says what each format becomes on each GPU of the catalogue.
func (r *inspection) runsOn(skus []*sku.SKU) {
	type key struct {
		weights model.Format
		algo    string
		math    string
	}
	for _, s := range skus {
		at := map[key]int{}
		for i := range r.Groups {
			g := &r.Groups[i]
			k := key{g.Weights, g.Algo, g.Math}
			if !g.Quantised() {
				continue
			}
			if n, ok := at[k]; ok {
				r.RunsOn[n].Params += g.Params
				continue
			}
			at[k] = len(r.RunsOn)
			r.RunsOn = append(r.RunsOn, inspectPath{s.ID, g.Weights, g.Algo, g.Params, g.On(s.Capability)})
		}
	}
	if r.RunsOn == nil {
		r.RunsOn = []inspectPath{}
	}
}

// check compares the claims with what is known by now.
func (r *inspection) check() { r.Claims = model.CheckClaims(r.said, r.known) }

func (r *inspection) trafficText() string {
	text := r.Model
	if r.shards != nil {
		text += fmt.Sprintf(": headers of %d files", len(r.shards.Shards))
	}
	if r.Traffic != nil && r.Traffic.Requests > 0 {
		text += fmt.Sprintf(", %d reads, %.2f MB", r.Traffic.Requests, float64(r.Traffic.Bytes)/1e6)
	}
	return text
}

// fails tells whether an outcome is among those named with --fail-on.
func (r *inspection) fails(on []string) bool {
	for _, what := range on {
		switch what {
		case "problem":
			if len(r.Problems) > 0 {
				return true
			}
		case "inconclusive":
			if slices.ContainsFunc(r.Claims, func(c model.Check) bool { return c.Verdict == what }) {
				return true
			}
		default:
			if r.Weights != nil && r.Weights.Verdicts[what] > 0 {
				return true
			}
		}
	}
	return false
}
