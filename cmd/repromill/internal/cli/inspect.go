package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/hub"
	"github.com/repromill/repromill/planner/intake"
	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/target"
)

// inspectFlags say how deep to look.
type inspectFlags struct {
	skus       []string
	configOnly bool
	weights    bool
	against    string
	layers     string
	sample     int
	seed       uint64
	plot       string
	save       bool
	failOn     []string
}

func (a *app) inspectCmd() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect MODEL",
		Short: "Say what a model really is, from its bytes, and check its card",
		Long: `Read a model's configuration, quantisation metadata and the headers of its
safetensors files, and say which part is in which number format, what that runs
as on each GPU, the true number of parameters, bytes, and memory per token; then
check what the name, the card and the hub's metadata say. Headers are read by
range requests: no weights are downloaded.

MODEL is a model of the Hugging Face Hub (org/name, org/name@revision or its
URL), a folder, or a config.json (paths start with ./, ../, / or ~/).

With --weights every weight is read as a stream and its scales are looked at:
zeros, NaN, saturation, constants, an inverted global scale. With --against BASE
every weight is compared with that of the base: relative error, SQNR, cosine,
and the error that rounding to the nearest would give, worst first. Both go on
where they were interrupted; memory does not grow with the model.`,
		Example: `  repromill inspect nvidia/Qwen3.6-27B-NVFP4
  repromill inspect ./checkpoint --weights
  repromill inspect ./checkpoint --against ./base --plot layers.svg --save
  repromill inspect org/model-NVFP4 --against org/model --layers 'layers\.(0|31)\.' --sample 64
  repromill inspect flags 'fp8=vllm serve org/model-FP8' 'nvfp4=vllm serve org/model-NVFP4 --kv-cache-dtype fp8'`,
		Args: exactArgs(1, "one model"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), &f, args[0]) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.skus, "sku", []string{"a100", "h100", "b200", "rtx-pro-6000"}, "`GPUs` of the table, by id or as drivers name them")
	fl.BoolVar(&f.configOnly, "config-only", false, "do not read the headers of the weights")
	fl.BoolVar(&f.weights, "weights", false, "read the weights and look for broken scales")
	fl.StringVar(&f.against, "against", "", "compare the weights with those of `BASE`")
	fl.StringVar(&f.layers, "layers", "", "only weights whose name matches this `REGEXP`")
	fl.IntVar(&f.sample, "sample", 0, "read `N` random blocks of rows of a weight instead of all of it")
	fl.Uint64Var(&f.seed, "seed", 1, "seed of --sample")
	fl.StringVar(&f.plot, "plot", "", "draw the errors by layer into `FILE`, .svg or .png")
	fl.BoolVar(&f.save, "save", false, "commit the layers table to the results")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on any of broken, suspicious, problem, inconclusive")
	cmd.AddCommand(a.inspectFlagsCmd())
	return cmd
}

func (f *inspectFlags) check() error {
	if f.against != "" {
		f.weights = true
	}
	for _, v := range f.failOn {
		if !slices.Contains([]string{"broken", "suspicious", "problem", "inconclusive"}, v) {
			return usererrf("outcomes are broken, suspicious, problem and inconclusive", "--fail-on %q is no outcome", v)
		}
	}
	needs := map[string]bool{"--layers": f.layers != "", "--sample": f.sample != 0, "--save": f.save}
	for _, name := range sortedKeys(needs) {
		if needs[name] && !f.weights {
			return usererrf("add --weights or --against BASE", "%s is about weights, which are not read", name)
		}
	}
	if f.plot != "" && f.against == "" {
		return usererrf("add --against BASE", "--plot draws errors against a base, and none is named")
	}
	if ext := filepath.Ext(f.plot); f.plot != "" && ext != ".svg" && ext != ".png" {
		return usererrf("end the name in .svg or .png", "--plot %q is of no known kind", f.plot)
	}
	if f.sample < 0 || f.sample > 1<<20 {
		return usererrf("give a number of blocks, or 0 for all", "--sample is %d", f.sample)
	}
	if f.configOnly && f.weights {
		return usererrf("drop one of them", "--config-only reads no weights")
	}
	return nil
}

// subject is a model that is looked at, with the way to its files.
type subject struct {
	ID       string
	Revision string // commit, empty for a folder
	URL      string
	From     string // hub, folder or config
	Access   string // of the hub
	Source   model.Source
	Hub      *hub.Source // nil for a folder
	Names    []string    // of all files; nil for a config alone
	Card     []byte
	Licence  string   // of the hub's metadata
	Base     []string // of the hub's metadata
	Claims   []model.Claim
	Config   []byte // of a config alone
	Warnings []string
}

// subject finds out what a name means.
func (a *app) subject(ctx context.Context, name string) (*subject, error) {
	name = a.expand(name)
	if filepath.IsAbs(name) {
		return localSubject(name)
	}
	t, err := target.Parse(name)
	if err != nil {
		return nil, err
	}
	if t.Kind != target.HFModel {
		return nil, usererrf("name a model such as Qwen/Qwen3-32B, a folder or ./config.json", "%q is no model but %s", name, t.Kind)
	}
	return a.hubSubject(ctx, "", t.ID, t.Revision)
}

// hubSubject reads what the hub says of a model; record is a mirror that all
// answers are also written to, or empty.
func (a *app) hubSubject(ctx context.Context, record, id, revision string) (*subject, error) {
	pl, err := a.pipelineInto(record)
	if err != nil {
		return nil, err
	}
	got, err := pl.Intake.Model(ctx, id, revision)
	if err != nil {
		return nil, err
	}
	if got.Access == "gated" {
		return nil, usererrf("accept the conditions at "+got.URL+" and set HF_TOKEN to a token of that account", "%s is gated: its files may not be read", got.ID)
	}
	if len(got.Config) == 0 {
		return nil, usererrf("name a model in the format of transformers, with config.json and safetensors", "%s has no config.json%s", got.ID, otherKinds(got))
	}
	client, err := a.client(record)
	if err != nil {
		return nil, err
	}
	s := &subject{
		ID: got.ID, Revision: got.Revision, URL: got.URL, From: "hub", Access: got.Access, Card: []byte(got.Card),
		Licence: got.Licence, Base: got.Base,
	}
	var sizes map[string]int64
	s.Names = []string{"config.json", "hf_quant_config.json", "generation_config.json"}
	if len(got.Files) > 0 {
		sizes = map[string]int64{}
		for _, f := range got.Files {
			sizes[f.Path] = f.Size
		}
		s.Names = slices.Sorted(maps.Keys(sizes))
	}
	s.Hub = hub.New(hub.Config{Client: client, ID: got.ID, Revision: cmp.Or(got.Revision, revision, "main"), Sizes: sizes})
	s.Source = s.Hub
	for _, w := range got.Warnings {
		if w.Code != "remote_code" { // said among the flags
			s.Warnings = append(s.Warnings, w.Message)
		}
	}
	for _, f := range got.Facts {
		var n float64
		if f.Name == "parameters" && json.Unmarshal([]byte(f.Value), &n) == nil && n > 0 {
			s.Claims = append(s.Claims, model.Claim{Kind: "parameters", Text: f.Value, Source: "hub: safetensors.total", Value: n})
		}
	}
	return s, nil
}

// otherKinds says in which other formats a model's weights are.
func otherKinds(m *intake.Model) string {
	for _, f := range m.Facts {
		if f.Name == "weight_formats" && f.Value != "" {
			return "; its weights are " + f.Value + ", and a pickle is never opened"
		}
	}
	return ""
}

// client is the guarded way out, with the settings of this invocation.
func (a *app) client(record string) (*fetch.Client, error) {
	cfg, err := a.fetchConfig(record)
	if err != nil {
		return nil, err
	}
	return fetch.New(cfg)
}

// localSubject reads a folder or one configuration. A snapshot in the hub's own
// cache knows its name and its commit.
func localSubject(path string) (*subject, error) {
	const fix = "name a folder with config.json and safetensors, or a config.json"
	info, err := os.Stat(path)
	if err != nil {
		return nil, usererrf(fix, "cannot read %s: %v", path, errors.Unwrap(err))
	}
	if !info.IsDir() {
		if strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".bin") || strings.HasSuffix(path, ".pt") || strings.HasSuffix(path, ".gguf") {
			return nil, usererrf(fix, "%s is a file of weights", path)
		}
		b, err := readBounded(path)
		if err != nil {
			return nil, usererrf(fix, "cannot read %s: %v", path, err)
		}
		id := filepath.Base(path)
		if id == "config.json" {
			id = filepath.Base(filepath.Dir(path))
		}
		id = strings.TrimSuffix(strings.TrimSuffix(id, ".json"), ".config")
		return &subject{ID: strings.Replace(id, "--", "/", 1), From: "config", Config: b}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, usererrf(fix, "cannot read %s: %v", path, err)
	}
	s := &subject{ID: filepath.Base(path), From: "folder", Source: model.Folder(path)}
	for _, e := range entries {
		s.Names = append(s.Names, e.Name())
	}
	snapshots := filepath.Dir(path)
	if repo, ok := strings.CutPrefix(filepath.Base(filepath.Dir(snapshots)), "models--"); ok && filepath.Base(snapshots) == "snapshots" {
		s.ID, s.Revision = strings.Replace(repo, "--", "/", 1), filepath.Base(path)
	}
	s.Card, _ = s.read(context.Background(), "README.md", model.MaxCard) // a card is optional
	return s, nil
}

// read reads a small file of the model.
func (s *subject) read(ctx context.Context, name string, most int64) ([]byte, error) {
	if s.Source == nil || !slices.Contains(s.Names, name) {
		return nil, fs.ErrNotExist
	}
	f, err := s.Source.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, min(f.Size(), most)))
}

// gpus are the columns of the table.
func (f *inspectFlags) gpus() ([]model.GPU, error) {
	found, err := findSKUs(f.skus)
	if err != nil {
		return nil, err
	}
	out := make([]model.GPU, len(found))
	for i, s := range found {
		out[i] = model.GPU{Name: s.ID, Capability: s.Capability}
	}
	return out, nil
}

func (a *app) inspect(ctx context.Context, f *inspectFlags, name string) error {
	if err := f.check(); err != nil {
		return err
	}
	gpus, err := f.gpus()
	if err != nil {
		return err
	}
	u := a.ui()
	u.start("read")
	s, err := a.subject(ctx, name)
	if err != nil {
		u.abandon()
		return err
	}
	r, err := s.facts(ctx, f.configOnly)
	if err != nil {
		u.abandon()
		return err
	}
	r.runsOn(sku.Catalogue())
	u.finish(r.trafficText())
	if f.weights {
		if err := a.inspectWeights(ctx, f, s, r); err != nil {
			return err
		}
	}
	r.check()
	if a.jsonOut {
		err = a.printJSON(r)
	} else {
		err = a.printInspection(r, gpus)
	}
	if err == nil && r.fails(f.failOn) {
		return &exitError{exitFailOn}
	}
	return err
}
