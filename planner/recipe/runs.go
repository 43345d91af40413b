package recipe

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// Choice is the outcome of choosing among the documented commands.
type Choice struct {
	Runs      []spec.Run
	Minimal   *Candidate // nil when nothing can be run
	Commands  map[string]*Command
	Decisions []spec.Decision
	Warnings  []spec.Warning
}

// Choose picks the smoke, the minimal and the full run out of the commands. A
// bonus, which may be nil, adds to the worth of a candidate what is known of
// the claims that it can check.
func Choose(f *inspect.Facts, cmds []*Command, bonus func(*Command) (float64, string)) *Choice {
	ch := &Choice{Commands: map[string]*Command{}}
	cands := candidates(f, cmds)
	if bonus != nil {
		for _, k := range cands {
			if p, why := bonus(k.Command); p != 0 {
				k.add(p, why)
				k.Stated = p >= 20
			}
		}
	}
	sort.SliceStable(cands, func(i, j int) bool { return cands[i].Score > cands[j].Score })
	b := &builder{f: f, cmds: cmds, cands: cands, ch: ch}
	if len(cands) == 0 {
		b.nothing()
		return ch
	}
	minimal := smallest(cands)
	ch.Minimal = minimal
	b.smoke(minimal)
	b.add(minimal, "minimal", true)
	b.demo(minimal)
	b.full(minimal)
	b.explain(minimal)
	return ch
}

// smallest is the best candidate that is no quick check. Where every such one
// lacks its input, a quick check whose result is stated takes its place.
func smallest(cands []*Candidate) *Candidate {
	var first *Candidate
	for _, k := range cands {
		if k.Smoke || k.Route == "demo" && others(cands) {
			continue
		}
		if first == nil {
			first = k
		}
		if k != first && k.Doc < 0 && first.Missing == "" {
			continue // what no document shows does not take the place of what one does
		}
		if k.Missing == "" && len(k.Lacks) == 0 && len(k.Unbound) == 0 {
			return first
		}
	}
	for _, k := range cands {
		if k.Smoke && k.Stated && k.Missing == "" && len(k.Lacks) == 0 && len(k.Unbound) == 0 {
			k.Smoke = false
			return k
		}
	}
	if first == nil {
		return cands[0]
	}
	return first
}

// others says that something beside demonstrations could be run.
func others(cands []*Candidate) bool {
	for _, k := range cands {
		if k.Route != "demo" && !k.Smoke && k.Missing == "" && k.Score > 0 {
			return true
		}
	}
	return false
}

// demo selects a smoke run where a demonstration is all that the repository
// offers: nobody could compare its result, but it shows that the code runs.
func (b *builder) demo(minimal *Candidate) {
	last := b.ch.Runs[len(b.ch.Runs)-1]
	if last.Status != "smoke_only" || len(last.Placeholders) > 0 {
		return
	}
	for i := range b.ch.Runs {
		r := &b.ch.Runs[i]
		if r.Kind == "smoke" && len(r.Placeholders) == 0 && (r.Status == "auto" || r.Status == "smoke_only") {
			r.Selected = true
			return
		}
	}
	b.decide("smoke run", minimal.Display, nil, "a demonstration is all that the repository offers")
	r := b.run(minimal, "smoke", FreeID(b.ch.Runs, "smoke"))
	r.Selected = true
	b.ch.Runs = append(b.ch.Runs, r)
	b.ch.Commands[r.ID] = minimal.Command
}

// FreeID is the name for one more run of a plan: the wanted one, or with a
// number where a run has it already.
func FreeID(runs []spec.Run, want string) string {
	for n := 1; ; n++ {
		id := want
		if n > 1 {
			id += "-" + strconv.Itoa(n)
		}
		if !slices.ContainsFunc(runs, func(r spec.Run) bool { return r.ID == id }) {
			return id
		}
	}
}

type builder struct {
	f     *inspect.Facts
	cmds  []*Command
	cands []*Candidate
	ch    *Choice
}

// nothing records why no command can be chosen: one blocked run for each kind
// of command that was refused.
func (b *builder) nothing() {
	why := map[Role]string{RoleBlocking: "serves or waits for a person and never ends by itself", RoleCluster: "needs a batch scheduler such as Slurm"}
	n := 0
	for _, c := range b.cmds {
		reason, ok := why[c.Role]
		if !ok || n >= 3 {
			continue
		}
		n++
		k := &Candidate{Command: c, Route: "demo"}
		r := b.run(k, "minimal", "blocked-"+strconv.Itoa(n))
		r.Status, r.Reasons = "blocked", []string{reason}
		r.Needs = []spec.Need{{What: "entry", Name: c.Entry, Status: "blocked", Reason: reason}}
		b.ch.Runs = append(b.ch.Runs, r)
	}
	b.ch.Warnings = append(b.ch.Warnings, spec.Warning{Code: "nothing_to_run", Message: "no document, script or notebook of the repository shows a command that could be run"})
}

func (b *builder) add(k *Candidate, kind string, selected bool) {
	r := b.run(k, kind, kind)
	r.Selected = selected && len(r.Placeholders) == 0 && r.Status == "auto"
	b.ch.Runs = append(b.ch.Runs, r)
	b.ch.Commands[r.ID] = k.Command
}

// run turns a candidate into a run of the plan.
func (b *builder) run(k *Candidate, kind, id string) spec.Run {
	c := k.Command
	r := spec.Run{
		ID: id, Kind: kind, Route: k.Route, Command: c.Display, Argv: c.Argv, Script: c.Script, Cwd: c.Cwd, Env: c.Env, Patches: c.Patches,
		Evidence: []spec.Evidence{c.Evidence}, Quoted: c.Quoted && c.Doc >= 0 && c.Block >= 0, Placeholders: c.Unbound, Reasons: c.Reasons,
		TimeoutS: timeout(k), Seeds: seeds(b.f, c),
	}
	if c.Script != nil {
		r.Argv = nil
	}
	if r.Cwd == "" {
		r.Cwd = "."
	}
	r.Setup = b.setup(c, &r)
	c.Before = r.Setup
	r.GPUs = b.gpus(c)
	b.assets(c, &r)
	b.status(k, &r)
	return r
}

// DefaultTimeoutS bounds a run for which nobody states a duration.
const DefaultTimeoutS = 3600

// timeout is twenty times what is stated, at least ten minutes, at most two
// days; an hour where nothing is stated, a day for training.
func timeout(k *Candidate) int {
	if k.Seconds > 0 {
		return int(min(max(20*k.Seconds, 600), 2*86400))
	}
	if k.Route == "reduced_training" {
		return 86400
	}
	return DefaultTimeoutS
}

var seedRE = regexp.MustCompile(`^--?(?:random[_-])?seed$`)

// seeds is the seed that the command or the script's default gives.
func seeds(f *inspect.Facts, c *Command) []int64 {
	for i, a := range c.Args {
		name, val, eq := strings.Cut(a, "=")
		if !eq && i+1 < len(c.Args) {
			val = c.Args[i+1]
		}
		if seedRE.MatchString(name) {
			if v, err := strconv.ParseInt(val, 10, 64); err == nil {
				return []int64{v}
			}
		}
	}
	if m := f.Modules[c.core().Entry]; m != nil {
		for _, fl := range m.Flags {
			if fl.By != "global" && seedRE.MatchString(fl.Names[len(fl.Names)-1]) {
				if v, err := strconv.ParseInt(fl.Default, 10, 64); err == nil {
					return []int64{v}
				}
			}
		}
	}
	return nil
}

// setup lists the documented steps that come before a command: data
// preparation and downloads that stand earlier in the same document and lie in
// the same part of it.
func (b *builder) setup(c *Command, r *spec.Run) []spec.Step {
	if c.Doc < 0 || complete(b.f, c) {
		return nil
	}
	var out []spec.Step
	for _, s := range producers(b.f, c, b.cmds) {
		out = append(out, spec.Step{Argv: s.Argv, Cwd: s.Cwd, Network: b.downloads(s.Entry) || strings.Contains(strings.Join(s.Argv, " "), "://")})
	}
	if len(out) > 0 && len(lacking(b.f, c, b.cmds)) == 0 {
		return out // what it reads is made out of what the repository holds
	}
	for _, s := range b.cmds {
		if s.Doc != c.Doc || s.Line >= c.Line || s.Block < 0 || s.Role != RoleSetup && s.Role != RoleDownload {
			continue
		}
		argv := s.Argv
		if s.Script != nil && s.Script.Interpreter == "bash" {
			argv = []string{"bash", "-c", s.Script.Text} // a loop over the parts of the data
		}
		if s.Block != c.Block && !related(s, c) || s.Missing != "" || len(argv) == 0 || reaches(argv) {
			continue
		}
		if len(s.Unbound) > 0 {
			r.Reasons = append(r.Reasons, fmt.Sprintf("the step before it at %s holds placeholders: %s", place(s.Evidence), strings.Join(s.Unbound, ", ")))
			continue
		}
		out = append(out, spec.Step{Argv: argv, Cwd: s.Cwd, Network: s.Role == RoleDownload || b.downloads(s.Entry)})
		if len(out) >= 20 {
			break
		}
	}
	return out
}

// reaches says that a step touches what lies outside the checkout or removes
// something, which no preparation of data needs.
func reaches(argv []string) bool {
	if argv[0] == "rm" || argv[0] == "sudo" {
		return true
	}
	for _, a := range argv[1:] {
		if path.IsAbs(a) || a == ".." || strings.HasPrefix(a, "../") || strings.HasPrefix(a, "~") {
			return true
		}
	}
	return false
}

// related says that a step belongs to a command: under the same heading or one
// above it, or with a data folder or file that the command names.
func related(s, c *Command) bool {
	if len(s.Section) <= len(c.Section) {
		same := true
		for i, h := range s.Section {
			same = same && h == c.Section[i]
		}
		if same && len(s.Section) > 1 {
			return !unrelatedData(s, c)
		}
	}
	for _, h := range s.Section {
		if dataHeadingRE.MatchString(h) && !unrelatedData(s, c) {
			return true
		}
	}
	for _, a := range s.Argv {
		if base := path.Base(a); len(base) > 4 && strings.Contains(base, ".") {
			for _, x := range c.Args {
				if strings.Contains(x, base) {
					return true
				}
			}
		}
	}
	return sharesName(s, c)
}

var (
	dataHeadingRE = regexp.MustCompile(`(?i)\bdata(?:set)?s?\b|prepar|download|checkpoint|pre-?trained`)
	wordRE        = regexp.MustCompile(`[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*`)
)

// sharesName says that a step and a command name the same data set: a word of
// the step's path that is long enough to be a name.
func sharesName(s, c *Command) bool {
	names := map[string]bool{}
	for _, w := range wordRE.FindAllString(s.Entry+" "+strings.Join(s.Args, " "), -1) {
		if len(w) >= 6 && !commonWords[strings.ToLower(w)] {
			names[strings.ToLower(w)] = true
		}
	}
	text := strings.ToLower(strings.Join(c.Args, " "))
	for n := range names {
		if strings.Contains(text, n) {
			return true
		}
	}
	return false
}

var commonWords = map[string]bool{"prepare": true, "preprocess": true, "download": true, "dataset": true, "datasets": true, "scripts": true, "python": true, "config": true, "configs": true, "convert": true, "output": true, "examples": true, "experiments": true}

// unrelatedData says that both name data, and not the same.
func unrelatedData(s, c *Command) bool {
	if !strings.HasPrefix(s.Entry, "data/") || strings.Count(s.Entry, "/") < 2 {
		return false
	}
	return !sharesName(s, c)
}

// downloads says whether a script fetches data while it runs.
func (b *builder) downloads(entry string) bool { return len(b.networkCalls(entry)) > 0 }

func (b *builder) networkCalls(entry string) []string {
	var out []string
	for _, p := range b.f.Reach(entry) {
		m := b.f.Modules[p]
		if m == nil {
			continue
		}
		for call := range m.Calls {
			if networkCall(call) {
				out = append(out, call)
			}
		}
	}
	sort.Strings(out)
	return out
}

func networkCall(call string) bool {
	switch call {
	case "requests.get", "requests.post", "urlretrieve", "urllib.request.urlretrieve", "urllib.request.urlopen", "urlopen", "load_dataset",
		"datasets.load_dataset", "hf_hub_download", "snapshot_download", "gdown.download", "wget.download", "fetch_openml", "download_url",
		"torch.hub.load", "torch.hub.load_state_dict_from_url", "tfds.load", "fetch_20newsgroups", "fetch_california_housing", "keras.utils.get_file":
		return true
	}
	return strings.HasSuffix(call, ".from_pretrained") || strings.HasPrefix(call, "torchvision.datasets.") || strings.HasPrefix(call, "datasets.CIFAR") || strings.HasPrefix(call, "datasets.MNIST")
}

// gpus guesses how many accelerators a run needs at least.
func (b *builder) gpus(c *Command) spec.GPUNeed {
	need := spec.GPUNeed{}
	if c.GPUs > 0 && launchersGPU(c) {
		need.Min = c.GPUs * max(1, c.Nodes)
		need.Hint = "the launcher asks for " + strconv.Itoa(c.GPUs) + " processes on each node"
		need.Evidence = []spec.Evidence{c.Evidence}
	}
	if v := c.Env["CUDA_VISIBLE_DEVICES"]; v != "" && need.Min == 0 && v != "-1" {
		need.Min = strings.Count(v, ",") + 1
		need.Hint = "CUDA_VISIBLE_DEVICES=" + v
		need.Evidence = []spec.Evidence{c.Evidence}
	}
	text := strings.ToLower(strings.Join(c.Argv, " "))
	if strings.Contains(text, "device=cpu") || strings.Contains(text, "device cpu") || strings.Contains(text, "--cpu") {
		return spec.GPUNeed{Hint: "the command chooses the CPU", Evidence: []spec.Evidence{c.Evidence}}
	}
	if need.Min > 0 {
		return need
	}
	uses, asks := false, false
	for _, p := range b.f.Reach(c.core().Entry) {
		m := b.f.Modules[p]
		if m == nil {
			continue
		}
		for call := range m.Calls {
			switch {
			case strings.HasSuffix(call, "cuda.is_available") || strings.HasSuffix(call, "list_physical_devices"):
				asks = true
			case strings.HasSuffix(call, ".cuda") || strings.HasSuffix(call, "cuda.set_device") || strings.HasSuffix(call, "cuda.synchronize"):
				uses = true
			}
		}
	}
	if uses && !asks {
		need.Min, need.Hint = 1, "the code moves tensors to CUDA without asking whether there is one"
	} else if uses || asks {
		need.Hint = "uses a GPU where there is one"
	}
	return need
}

func launchersGPU(c *Command) bool {
	return c.Program != "mpirun" && c.Program != "mpiexec"
}
