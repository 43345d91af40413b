package ruler

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
)

// version is that of the generator: with another, the same seed gives other bytes.
const version = 1

// files are what some kinds are made of, in the order of [source]. Essays are those
// that lm-evaluation-harness reads; the others are the development sets which the
// published generator reads, as their publishers keep them on the hub.
var files = []data.File{
	{Repo: "baber/paul_graham_essays", Commit: "792d672b77d1a67720f7e9820d646358fc18792e", Path: "essays.parquet"},
	{Repo: "rajpurkar/squad_v2", Commit: "3ffb306f725f7d2ce8394bc1873b24868140c412", Path: "squad_v2/validation-00000-of-00001.parquet"},
	{Repo: "hotpotqa/hotpot_qa", Commit: "1908d6afbbead072334abe2965f91bd2709910ab", Path: "distractor/validation-00000-of-00001.parquet"},
}

// perKind is how many questions of each kind there are. NVIDIA asks as many of its
// own models; the paper asks 500.
const perKind = 100

// style is how questions are put.
type style struct {
	suffix, doc, source string
	text                bool // completions endpoint
	made                bool // only the kinds that need no data
	reserve             int  // tokens kept free for what the server adds
	temperature         float64
}

var styles = []style{
	{suffix: "", doc: "chat, the answer begun for the model, thinking off", source: "NVIDIA-NeMo/Evaluator@ac66aff:nemo-evaluator-launcher/examples/nemotron (ruler-*-chat); 50 tokens for the chat template, as NVIDIA-NeMo/Skills@8b18f39:nemo_skills/dataset/ruler/prepare.py", reserve: 50, temperature: 1e-5},
	{suffix: "-completions", doc: "completions endpoint, for base models", source: "NVIDIA/RULER@c3f5e3b:scripts/data/template.py (base)", text: true, reserve: 1},
	{suffix: "-made", doc: "chat, only the six kinds that need no data of others", source: "NVIDIA/RULER@c3f5e3b:scripts/synthetic.yaml", made: true, reserve: 50, temperature: 1e-5},
}

// lengths are those of the paper, in tokens of prompt and answer together.
var lengths = []int{4096, 8192, 16384, 32768, 65536, 131072}

func (s *style) kinds() (out []*kind) {
	for i := range kinds {
		if k := &kinds[i]; !s.made || k.needs == none {
			out = append(out, k)
		}
	}
	return out
}

// Definition registers the suite.
func Definition() suites.Definition {
	d := suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: perKind * len(kinds), Repeats: 1, Within: 0.05, DataSet: files[0].Repo, Needs: []suites.Need{suites.Tokenizer}, PromptTokens: 4000, OutputTokens: 90},
		Doc:   "RULER: thirteen kinds of questions over contexts of 4k to 128k tokens, made with the served model's tokenizer",
		Data:  files, Graders: Graders(), Open: open,
	}
	for i := range styles {
		s := &styles[i]
		for _, n := range lengths {
			v := suites.Variant{Name: fmt.Sprintf("%dk%s", n/1024, s.suffix), Doc: fmt.Sprintf("%d tokens; %s", n, s.doc), Source: s.source, Rule: "official",
				Questions: perKind * len(s.kinds()), PromptTokens: n - 100, Sampling: suites.Sampling{Temperature: &s.temperature, MaxTokens: 128}}
			if !s.text {
				v.Sampling.Extra = map[string]any{"chat_template_kwargs": map[string]any{"enable_thinking": false}}
			}
			d.Variants = append(d.Variants, v)
		}
	}
	return d
}

func parseVariant(name string) (length int, s *style, err error) {
	for i := range styles {
		for _, n := range lengths {
			if name == fmt.Sprintf("%dk%s", n/1024, styles[i].suffix) {
				return n, &styles[i], nil
			}
		}
	}
	return 0, nil, fmt.Errorf("open ruler: there is no variant %q", name)
}

// UserError is a mistake of the user's, with the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// frozen is the first line of what is kept.
type frozen struct {
	Version int      `json:"version"`
	Variant string   `json:"variant"`
	Seed    uint64   `json:"seed"`
	Data    []string `json:"data,omitempty"` // hashes of what was read
	Example int      `json:"example"`        // lines of the worked example of variable tracking
	Calls   int64    `json:"calls"`          // of the tokenizer
}

// Data makes its questions again from recipes.
type Data struct {
	style *style
	m     *maker
	items []item
}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	length, s, err := parseVariant(env.Variant)
	if err != nil {
		return nil, err
	}
	d := &Data{style: s, m: &maker{seed: env.Seed, budget: length - s.reserve}}
	head := frozen{Version: version, Variant: env.Variant, Seed: env.Seed}
	if d.m.essay, d.m.corpora, head.Data, err = needed(ctx, env.Hub, env.Files, s.kinds()); err != nil {
		return nil, err
	}
	name := filepath.Join(env.Dir, "questions.jsonl")
	err = d.read(name, head)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	if env.Limit != nil {
		limit, err := env.Limit(ctx)
		if err != nil {
			return nil, err
		}
		if limit > 0 && limit < length {
			return nil, &UserError{fmt.Sprintf("ruler:%s makes prompts of %d tokens, but a model is served with a context of %d", env.Variant, length, limit), "serve it with a larger --max-model-len, or choose a shorter variant"}
		}
	}
	if env.Count == nil {
		return nil, &UserError{"ruler sizes its prompts with the tokenizer of the served model, and no endpoint is at hand", "name the endpoints with --endpoint NAME=URL"}
	}
	if err := d.build(ctx, env, &head); err != nil {
		return nil, err
	}
	return d, d.write(name, head)
}

// exampleTokens is how long the worked example of variable tracking may be.
const exampleTokens = 500

func (d *Data) build(ctx context.Context, env suites.Env, head *frozen) (err error) {
	z := &sizer{m: d.m, count: env.Count}
	d.m.example, _, err = search(hops+2, exampleTokens, func(size int) (int, error) {
		t := d.m.tracked(d.m.rng("vt", 0), d.m.rng("vt/example", 0), 3, size)
		return z.tokens(ctx, t.input+t.prefix)
	})
	if err != nil {
		return err
	}
	d.items, err = z.all(ctx, d.style.kinds(), perKind)
	head.Example, head.Calls = d.m.example, z.calls.Load()
	return err
}

func (d *Data) write(name string, head frozen) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(head)
	for i := range d.items {
		err = errors.Join(err, enc.Encode(&d.items[i]))
	}
	if err == nil {
		err = atomicfile.Write(name, b.Bytes(), atomicfile.Options{Perm: 0o600, Temp: name + ".tmp"})
	}
	if err != nil {
		return fmt.Errorf("keep questions: %w", err)
	}
	return nil
}

// read takes the questions that a run made before. It refuses those of other data
// or another generator, from which the same bytes cannot be made.
func (d *Data) read(name string, want frozen) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read questions: %w", err)
	}
	defer f.Close()
	dec := json.NewDecoder(bufio.NewReader(f))
	var head frozen
	if err := dec.Decode(&head); err != nil {
		return fmt.Errorf("read questions: %w", err)
	}
	d.m.example = head.Example
	if head.Version != want.Version || head.Variant != want.Variant || head.Seed != want.Seed || !slices.Equal(head.Data, want.Data) {
		return &UserError{fmt.Sprintf("the questions in %s were made by another generator or of other data", name), "go on with the program and the data sets that the run began with, or begin a new run"}
	}
	for dec.More() {
		var it item
		if err := dec.Decode(&it); err != nil {
			return fmt.Errorf("read questions: %w", err)
		}
		if kindOf(it.Kind) == nil {
			return fmt.Errorf("read questions: there is no kind %q", it.Kind)
		}
		d.items = append(d.items, it)
	}
	return nil
}

// Items implements [suites.Suite]. An item's data is its recipe with the hash of
// the prompt, so that its own hash stands for the very bytes.
func (d *Data) Items(context.Context) ([]suites.Item, error) {
	out := make([]suites.Item, len(d.items))
	for i, it := range d.items {
		recipe, err := json.Marshal(it)
		if err != nil {
			return nil, fmt.Errorf("list items: %w", err)
		}
		want, err := json.Marshal(it.Want)
		if err != nil {
			return nil, fmt.Errorf("list items: %w", err)
		}
		out[i] = suites.Item{ID: it.ID, Reference: string(want), Category: it.Kind, Cluster: it.Cluster, Data: string(recipe)}
	}
	return out, nil
}

// Prompt implements [suites.Suite]. The error says that the same bytes could not
// be made again.
func (d *Data) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	var recipe item
	if err := json.Unmarshal([]byte(it.Data), &recipe); err != nil {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %w", it.ID, err)
	}
	k := kindOf(recipe.Kind)
	if k == nil {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: there is no kind %q", it.ID, recipe.Kind)
	}
	made := k.make(d.m, k, recipe.Index, recipe.Size)
	if sum := made.sha(); hex.EncodeToString(sum[:]) != recipe.SHA {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: it is not the one that was made first", it.ID)
	}
	p := suites.Prompt{MaxTokens: k.reply}
	if d.style.text {
		p.Text = made.input + made.prefix
		return p, nil
	}
	p.Messages = []suites.Message{{Role: "user", Content: made.input}}
	p.Prefix = strings.TrimSpace(made.prefix)
	return p, nil
}

// Grader implements [suites.Suite].
func (d *Data) Grader() suites.Grader { return Official() }
