package recipe

import (
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
)

// Candidate is one run that could be chosen, with its worth.
type Candidate struct {
	*Command
	Route   string
	Stated  bool // a result of this very command is stated
	Smoke   bool // the repository itself offers it as a quick check
	Score   float64
	Full    float64 // how much it looks like the whole experiment
	Why     []string
	Lacks   []string // input that nobody provides
	Limits  string   // of a quick check: how it is made short
	Seconds float64  // stated duration, 0 when none is
}

var (
	evalRE       = regexp.MustCompile(`(?i)(?:^|[/_\-.\s])(?:eval\w*|test\w*|evaluate|validation|validate|benchmark\w*|infer_eval|score)(?:[_\-.\s]|$)`)
	evalFlagRE   = regexp.MustCompile(`(?i)^--?(?:eval|evaluate|do[_-]eval|eval[_-]only|test[_-]only|only[_-]test|test|eval[_-]mode)(?:=.*)?$|^mode=(?:test|eval)`)
	trainFlagRE  = regexp.MustCompile(`(?i)^--?(?:do[_-]train|train)(?:=|$)`)
	checkpointRE = regexp.MustCompile(`(?i)(?:--?(?:resume|checkpoint|ckpt|load|weights|model[_-]path|pretrained|init[_-]from|restore|model[_-]name[_-]or[_-]path)\b)|\.(?:pth|pt|ckpt|safetensors|bin)\b`)
	trainRE      = regexp.MustCompile(`(?i)(?:^|[/_\-.])(?:pre)?(?:train|finetun|fine_tun|sft|dpo|pretrain|learn|fit)\w*(?:[_\-.]|$)|run_(?:glue|clm|mlm)`)
	demoRE       = regexp.MustCompile(`(?i)(?:^|[/_\-.])(?:[a-z]+2(?:img|image|video|audio|speech|wav|mesh|3d)|inpaint\w*|sample|demo\w*|infer\w*|generate|predict\w*|visuali[sz]\w*|vis|plot\w*|render|chat\w*|edit\w*|tutorial|play|animate)(?:[_\-.]|$)`)
	showRE       = regexp.MustCompile(`(?i)(?:^|[/_\-.\s])(?:demo|tutorial|example|explor\w*|visuali[sz]\w*|figures?|plot\w*)(?:[_\-.\s]|$)`)
	baselineRE   = regexp.MustCompile(`(?i)\b(?:baselines?|full[- ]precision|vanilla|naive)\b`)
	promptRE     = regexp.MustCompile(`(?i)^--?(?:(?:text|input|edit|negative)[_-])?prompt$|^--?(?:question|query|instruction|input[_-](?:image|img|video|audio|text)|sentence)$`)
	gatherRE     = regexp.MustCompile(`(?i)(?:^|[/_\-.])(?:summar\w*|aggregat\w*|collect\w*|gather\w*|analy[sz]\w*|report|parse|compile_results|make_tables?|results?|get_\w*(?:urls?|tables?|scores?|stats)|merge\w*|recover\w*|(?:apply|make|weight)_(?:delta|diff))(?:[_\-.]|$)`)
	repeatRE     = regexp.MustCompile(`(?i)^--?(?:repeats?|n[_-]?repeats?|num[_-]?repeats?|n[_-]?(?:seeds|runs|trials)|num[_-]?(?:seeds|runs|trials)|trials|runs|itr)$`)
	quickRE      = regexp.MustCompile(`(?i)(?:--?|\b)(?:quick|smoke|fast[_-]dev[_-]run|dry[_-]run|debug|sanity|tiny|toy|mini)\b`)
	testRunRE    = regexp.MustCompile(`(?i)^(?:pytest|unittest|tox|nox)$`)
	bigRE        = regexp.MustCompile(`(?i)\b(?:7b|8b|13b|30b|33b|65b|70b|xxl|xl|large|huge|giant|openwebtext|imagenet|gpt2)\b|vit_?[lh]\b`)
	smallRE      = regexp.MustCompile(`(?i)\b(?:tiny|small|mini|toy|cpu|mnist|cifar10|base)\b|_char\b`)
	goodRE       = regexp.MustCompile(`(?i)reproduc|result|evaluat|experiment|benchmark|main`)
	quickStartRE = regexp.MustCompile(`(?i)quick\s*start|getting started|minimal|example|tl;?dr|usage|demo`)
	sideRE       = regexp.MustCompile(`(?i)sparse|ablation|optional|advanced|experimental|visuali|plot|convert|contribut|develop|demo|inference|sampling|docker|distributed|multi-?node|slurm|profil|efficiency|downstream`)
	minutesRE    = regexp.MustCompile(`(?i)(?:~|about|around|takes?|in|within|under|less than|only|for)?\s*(\d+(?:\.\d+)?)\s*(?:-|–|to)?\s*(\d+(?:\.\d+)?)?\s*(second|sec|minute|min|hour|hr|day|week)s?\b`)
	recordRE     = regexp.MustCompile(`(?i)(?:^|/)(?:[\w\-]*leaderboard|log|changelog|changes|news|notes|history|contributi\w*)\.\w+$|(?:^|/)(?:blog|posts)/`)
	sizeRE       = regexp.MustCompile(`(?i)(?:^|[^\w.])(?:[\w.]*[_\-])?(\d+(?:\.\d+)?)b(?:[^A-Za-z0-9]|$)`)
	taskFlagRE   = regexp.MustCompile(`(?i)^--?(?:env|env[_-]?(?:id|ids|name)|task|task[_-]?name|level|scenario|domain)$`)
	ownDataRE    = regexp.MustCompile(`(?i)your`)
	shortTimeRE  = regexp.MustCompile(`(?:^|\| )(\d+(?:\.\d+)?)\s*([smh])(?:in|r)?(?: \||$)`)
	lessRE       = regexp.MustCompile(`(?i)(?:less than|under|within) (?:a|one) (second|minute|hour)`)
)

// candidates ranks every command that runs something.
func candidates(f *inspect.Facts, cmds []*Command) []*Candidate {
	var out []*Candidate
	for _, c := range cmds {
		if c.Role != RoleRun {
			continue
		}
		k := &Candidate{Command: c}
		k.Route = route(f, c)
		k.Seconds = stated(f, c)
		k.Lacks = lacking(f, c, cmds)
		k.score(f)
		if len(producers(f, c, cmds)) > 0 && Measures(f, c) {
			k.add(12, "measures what the step before it makes")
		}
		out = append(out, k)
	}
	for _, k := range out {
		if len(k.Unbound) == 0 {
			continue
		}
		for _, o := range out {
			if o.core().Entry != "" && o.core().Entry == k.core().Entry && len(o.Unbound) == 0 && o.Missing == "" && o.Route == k.Route {
				k.add(-15, "holds placeholders, where the same program is run without any elsewhere")
				break
			}
		}
	}
	return out
}

// route names the way in which a run speaks to a claim.
func route(f *inspect.Facts, c *Command) string {
	if c.Inner != nil {
		c = c.core()
	}
	text := strings.Join(c.Args, " ")
	base := path.Base(c.Entry)
	if base == "." || base == "/" {
		base = c.Module
	}
	if c.Adapted {
		return "short_schedule"
	}
	if c.isSnippet() {
		return "demo"
	}
	evalFlag, trainFlag := false, false
	for _, a := range c.Args {
		evalFlag = evalFlag || evalFlagRE.MatchString(a)
		trainFlag = trainFlag || trainFlagRE.MatchString(a)
	}
	switch {
	case strings.HasSuffix(c.Entry, ".ipynb"):
		if showRE.MatchString(path.Base(c.Entry)) || !storesResult(f, c.Entry) {
			return "demo"
		}
		return "stored_result"
	case (demoRE.MatchString(base) || prompted(c) || showRE.MatchString(base) && !trains(f, c.Entry) && !Measures(f, c)) && !evalFlag:
		return "demo"
	case evalRE.MatchString(base) && !trainFlag && !checkpointRE.MatchString(text) && complete(f, c):
		return "recompute"
	case evalFlag && !trainFlag, evalRE.MatchString(base) && !trainFlag && checkpointRE.MatchString(text):
		return "eval_checkpoint"
	case evalRE.MatchString(base) && !trainFlag:
		return "recompute"
	case trainFlag || trainRE.MatchString(base) || trains(f, c.Entry):
		return "reduced_training"
	}
	return "recompute"
}

// prompted says that a command is given one input to work on: what it makes of
// it is to be looked at.
func prompted(c *Command) bool {
	for _, a := range c.Args {
		name, _, _ := strings.Cut(a, "=")
		if promptRE.MatchString(name) {
			return true
		}
	}
	return false
}

// storesResult says that the stored output of a notebook names a metric with
// its value.
func storesResult(f *inspect.Facts, p string) bool {
	for i := range f.Docs {
		if d := &f.Docs[i]; d.Path == p {
			for _, o := range d.Outputs[:min(len(d.Outputs), 3000)] {
				for _, c := range claim.FromOutput(o.Text, o.Line, 0) {
					if Result(&c) {
						return true
					}
				}
			}
		}
	}
	return false
}

// Result says that a claim is about what an experiment finds, and not about
// its cost or its training.
func Result(c *claim.Claim) bool {
	switch c.Key.Base {
	case "runtime", "memory", "throughput", "latency", "speedup", "energy", "cost":
		return false
	}
	return c.Key.Split != "train" && !(c.Source == claim.Output && progressRE.MatchString(c.Text))
}

// progressRE are lines that a program prints while it trains.
var progressRE = regexp.MustCompile(`(?i)\b(?:iter(?:ation)?|step|batch)\b\s*[:=\[]?\s*\d|learning_rate|\blr\b|examples/s|it/s`)

// trains says whether a program, or what it imports from the checkout beside a
// numerical framework, steps an optimiser or calls a trainer.
func trains(f *inspect.Facts, entry string) bool {
	uses, steps := false, false
	for i, p := range f.Reach(entry) {
		m := f.Modules[p]
		if m == nil {
			continue
		}
		for _, im := range m.Imports {
			top, _, _ := strings.Cut(im.Name, ".")
			uses = uses || inspect.FrameworkOf(top) != "" || frontends[top]
		}
		for call := range m.Calls {
			steps = steps || stepRE.MatchString(call) || i == 0 && strings.HasSuffix(call, ".fit")
		}
		if uses && steps {
			return true
		}
	}
	return false
}

var (
	stepRE    = regexp.MustCompile(`(?:^|[._])(?:opt|optim|optimizer|optimiser)\w*\.(?:step|minimize|apply_gradients|apply|update)$|(?:^|\.)(?:backward|apply_gradients|value_and_grad|GradientTape)$|trainer\.(?:train|fit)$|^(?:train|train_(?:model|epoch|one_epoch|loop)|run_training|create_optimizer)$`)
	frontends = map[string]bool{"keras": true, "flax": true, "haiku": true, "optax": true, "pytorch_lightning": true, "lightning": true, "transformers": true, "ninjax": true}
)

// stated is the duration in seconds that the words around a command give.
func stated(f *inspect.Facts, c *Command) float64 {
	if m := shortTimeRE.FindStringSubmatch(c.Comment); m != nil && c.Adapted {
		v, _ := strconv.ParseFloat(m[1], 64)
		return v * unitSeconds(m[2])
	}
	for _, text := range []string{c.Comment, c.Context} {
		if m := lessRE.FindStringSubmatch(text); m != nil {
			return unitSeconds(m[1])
		}
		if m := minutesRE.FindStringSubmatch(text); m != nil {
			v, _ := strconv.ParseFloat(m[1], 64)
			if m[2] != "" {
				v, _ = strconv.ParseFloat(m[2], 64)
			}
			return v * unitSeconds(m[3])
		}
	}
	if c.Doc < 0 {
		return 0
	}
	text := squashed(strings.Join(c.core().Args, " "))
	for _, p := range f.Docs[c.Doc].Doc.Paras {
		for _, m := range tookRE.FindAllStringSubmatch(p.Text, 6) {
			if name := squashed(m[1]); len(name) > 3 && strings.Contains(text, name) {
				v, _ := strconv.ParseFloat(m[2], 64)
				return v * unitSeconds(m[3])
			}
		}
	}
	return 0
}

// tookRE reads how long a named configuration takes: "X-medium took ~48h".
var tookRE = regexp.MustCompile(`([A-Za-z][\w\-]*),?\s+(?:took|takes?|required?|needs?|trains? (?:in|for)|[~≈])\s*(?:about|around|approximately|roughly|~|≈)?\s*(\d+(?:\.\d+)?)\s*-?\s*(s|min|h|d|second|minute|hour|day|week)(?:s|rs?|utes?)?\b`)

func unitSeconds(u string) float64 {
	switch strings.ToLower(u)[0] {
	case 's':
		return 1
	case 'm':
		return 60
	case 'h':
		return 3600
	case 'd':
		return 86400
	}
	return 7 * 86400
}

func (k *Candidate) add(points float64, why string) {
	k.Score += points
	if math.Abs(points) >= 8 {
		k.Why = append(k.Why, why)
	}
}

// score adds up what speaks for a candidate as the smallest run that checks a
// claim (evidence rank, availability of assets, cost). The weights order the
// signals; their absolute size means nothing.
func (k *Candidate) score(f *inspect.Facts) {
	c := k.Command
	text := c.Display + " " + strings.Join(c.Argv, " ")
	section := strings.Join(c.Section, " / ")
	k.placeScore(f)
	if testRunRE.MatchString(c.Program) || c.Module == "unittest" || c.Module == "pytest" {
		k.Smoke = true
		k.add(-35, "runs the tests, which prove that the code runs and not the claim")
	}
	if onCPU(c) {
		k.Smoke = true
		k.add(-20, "a variant for machines without a GPU")
	}
	if quickRE.MatchString(text) || quickRE.MatchString(c.Comment) || regexp.MustCompile(`(?i)smoke|sanity`).MatchString(lastLine(c.Context)) {
		k.Smoke = true
		k.add(-30, "a quick check by its own words")
	}
	switch k.Route {
	case "eval_checkpoint":
		k.add(22, "evaluates a released checkpoint")
	case "recompute":
		if evalRE.MatchString(path.Base(c.Entry)) && complete(f, c) {
			k.add(22, "computes the result from what the repository holds")
		}
	case "demo":
		k.add(-25, "a demonstration, which prints no result")
	}
	if goodRE.MatchString(section) {
		k.add(10, "stands under "+section)
	}
	if quickStartRE.MatchString(section) && !sideRE.MatchString(section) {
		k.add(6, "")
	}
	if sideRE.MatchString(lastOf(c.Section)) || sideRE.MatchString(path.Base(c.Entry)) || c.Doc < 0 && sideRE.MatchString(c.Entry) {
		k.add(-12, "stands beside the main experiment")
	}
	if strings.Contains(strings.ToLower(text), "plot") || strings.Contains(strings.ToLower(c.Entry), "figure") {
		k.add(-8, "draws a figure")
	}
	if gatherRE.MatchString(path.Base(c.core().Entry)) && !complete(f, c) {
		k.add(-20, "sums up or converts what other runs have made")
	}
	if baselineRE.MatchString(c.Comment) || baselineRE.MatchString(lastOf(c.Section)) {
		k.add(-8, "is the baseline of the experiment")
	}
	if n := repeats(c); n > 2 {
		k.add(-9, "repeats the experiment "+strconv.Itoa(n)+" times")
	}
	if own := method(f); own != "" && ofMethod(c, own) {
		k.add(12, "is named after the method, "+own)
	}
	if s := secrets(f, c); len(s) > 0 {
		k.add(-45, "fails without "+s[0])
	}
	k.costScore(text)
	if n := len(c.Unbound); n > 0 {
		cost := 15.0
		if n == 1 && dataWordRE.MatchString(c.Unbound[0]) {
			cost = 6 // where the data lies is for the reader to say
		}
		k.add(-cost-3*float64(min(n, 4)), "holds placeholders")
		if ownDataRE.MatchString(strings.Join(c.Unbound, " ")) {
			k.add(-20, "asks for the reader's own data, which is not the paper's experiment")
		}
	}
	if c.Missing != "" {
		k.add(-80, c.Missing)
	}
	if len(k.Lacks) > 0 {
		k.add(-20, k.Lacks[0]+" is not in the repository")
	}
	k.add(-0.4*float64(min(c.Order, 30)), "")
	if c.Script != nil {
		k.add(-4, "")
	}
}

// repeats is how often a command asks for the experiment to be repeated.
func repeats(c *Command) int {
	n := 0
	arguments(c.Args, func(name, val string) {
		if v, err := strconv.Atoi(val); err == nil && repeatRE.MatchString(name) {
			n = max(n, v)
		}
	})
	return n
}

var (
	acronymRE   = regexp.MustCompile(`\(([A-Za-z0-9\-]{3,14})\)`)
	methodRE    = regexp.MustCompile(`^[A-Za-z]*[A-Z][A-Za-z0-9\-]*[A-Z0-9][A-Za-z0-9\-]*$`)
	titleHeadRE = regexp.MustCompile(`^\W*([\w\-]+)\s*(?::|–|—|$)`)
)

// method is the name of the authors' method, as the title of the README gives
// it: before a colon, alone, or in brackets as an abbreviation. It is "" where
// the title has no such name.
func method(f *inspect.Facts) string {
	for i := range f.Docs {
		if f.Docs[i].Path != f.Readme || len(f.Docs[i].Doc.Headings) == 0 {
			continue
		}
		title := f.Docs[i].Doc.Headings[0].Text
		for _, re := range []*regexp.Regexp{acronymRE, titleHeadRE} {
			if m := re.FindStringSubmatch(title); m != nil && len(m[1]) > 2 && methodRE.MatchString(m[1]) {
				return m[1]
			}
		}
	}
	return ""
}

// ofMethod says that a command names the method: in the file it runs, in its
// options, or in the comment above it.
func ofMethod(c *Command, own string) bool {
	own = squashed(own)
	for _, text := range []string{path.Base(c.Entry), path.Base(c.core().Entry), c.Comment} {
		if strings.Contains(squashed(text), own) {
			return true
		}
	}
	for _, a := range c.core().Args {
		if s := squashed(a); s == own || len(own) >= 4 && strings.Contains(s, own) {
			return true
		}
	}
	return false
}

// onCPU says that the command itself chooses the CPU.
func onCPU(c *Command) bool {
	for i, a := range c.Args {
		if a == "--device=cpu" || a == "--cpu" || a == "--no-cuda" || a == "--no_cuda" || a == "cpu" && i > 0 && strings.Contains(c.Args[i-1], "device") {
			return true
		}
	}
	return false
}

func lastOf(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[len(s)-1]
}

// lastLine is the paragraph before a block: the first line of its context.
func lastLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

func (k *Candidate) placeScore(f *inspect.Facts) {
	c := k.Command
	switch {
	case c.Doc < 0 && strings.HasSuffix(c.Entry, ".ipynb") && !mentioned(f, path.Base(c.Entry)) && len(f.Starts) > 0:
		k.add(8, "a notebook that "+f.Readme+" does not name")
	case c.Doc < 0 && strings.HasSuffix(c.Entry, ".ipynb"):
		k.add(24, "a notebook with stored output")
	case c.Doc < 0 && c.Evidence.Quote == mainProgram:
		k.add(16, "a main program at the root")
	case c.Doc < 0 && globbed(f, c.Entry) != "":
		text := globbed(f, c.Entry)
		k.add(36, "the documents name it by a pattern")
		if goodRE.MatchString(text) {
			k.add(10, "to reproduce a result")
		}
	case c.Doc < 0 && path.Dir(c.Entry) != "." && pointed(f, path.Dir(c.Entry)):
		k.add(24, f.Readme+" points to its folder")
	case c.Doc < 0:
		k.add(10, "a script that no document names")
	case f.Docs[c.Doc].Notebook:
		k.add(4, "a cell of a notebook")
	case f.Docs[c.Doc].CI:
		k.add(0, "")
	case c.Evidence.File == f.Readme && c.Block >= 0:
		k.add(40, "shown in "+f.Readme)
	case c.Evidence.File == f.Readme:
		k.add(24, "named in "+f.Readme)
	case c.Block < 0:
		k.add(12, "")
	default:
		k.add(36-6*float64(strings.Count(c.Evidence.File, "/")), "shown in "+c.Evidence.File)
	}
	if c.Doc >= 0 && c.Evidence.File != f.Readme && f.Starts[c.Entry] > 0 {
		k.add(6-0.5*float64(min(f.Starts[c.Entry], 8)), "")
	}
	if recordRE.MatchString(c.Evidence.File) {
		k.add(-14, "stands beside other records of earlier runs")
	}
	if vendored(f, c.Entry) {
		k.add(-40, "belongs to a project that is copied into the repository")
	}
}

// mentioned says that the README names a file.
func mentioned(f *inspect.Facts, name string) bool {
	for i := range f.Docs {
		if d := &f.Docs[i]; d.Path == f.Readme {
			for _, p := range d.Doc.Paras {
				if strings.Contains(p.Text, name) || strings.Contains(p.Text, strings.ReplaceAll(name, " ", "%20")) {
					return true
				}
			}
			for _, t := range d.Doc.Tables {
				for _, r := range t.Rows {
					for _, l := range r.Links {
						if slices.ContainsFunc(l, func(u string) bool { return strings.HasSuffix(u, name) }) {
							return true
						}
					}
				}
			}
		}
	}
	return false
}

// vendored says that a file lies in another project within the checkout: a
// folder with its own licence and its own packaging.
func vendored(f *inspect.Facts, p string) bool {
	for d := path.Dir(p); d != "." && d != "/"; d = path.Dir(d) {
		if pointed(f, d) {
			return false
		}
		own := f.Has(d+"/LICENSE") || f.Has(d+"/LICENSE.md") || f.Has(d+"/LICENSE.txt")
		if own && (f.Has(d+"/setup.py") || f.Has(d+"/README.md") || f.Has(d+"/pyproject.toml")) {
			return true
		}
	}
	return false
}

var globRE = regexp.MustCompile(`[\w./\-]*(?:[*]|\{[\w.\-*|, ]*\})(?:[\w./\-*|]|\{[\w.\-*|, ]*\})*\.sh`)

// braces expands "{a,b}" as a shell does, at most thirty ways.
func braces(g string, depth int) []string {
	i := strings.IndexByte(g, '{')
	j := strings.IndexByte(g, '}')
	if i < 0 || j < i || depth > 3 {
		return []string{g}
	}
	var out []string
	for _, part := range strings.FieldsFunc(g[i+1:j], func(r rune) bool { return r == ',' || r == '|' }) {
		out = append(out, braces(g[:i]+part+g[j+1:], depth+1)...)
	}
	return out[:min(len(out), 30)]
}

// globbed is the paragraph of a document that names a script by a pattern, such
// as "scripts/train_*.sh", or "".
func globbed(f *inspect.Facts, entry string) string {
	for i := range f.Docs {
		d := &f.Docs[i]
		for _, p := range d.Doc.Paras {
			for _, g := range globRE.FindAllString(p.Text, 4) {
				for _, one := range braces(strings.ReplaceAll(g, " ", ""), 0) {
					if ok, err := path.Match(path.Join(path.Dir(d.Path), one), entry); err == nil && ok {
						return p.Text
					}
				}
			}
		}
	}
	return ""
}

// pointed says that the README sends its reader to a folder.
func pointed(f *inspect.Facts, dir string) bool {
	for i := range f.Docs {
		if f.Docs[i].Path != f.Readme {
			continue
		}
		for _, p := range f.Docs[i].Doc.Paras {
			if j := strings.Index(p.Text, dir); j >= 0 && (j+len(dir) == len(p.Text) || strings.IndexByte(")/`\"' ,.", p.Text[j+len(dir)]) >= 0) {
				return true
			}
		}
	}
	return false
}

// withoutTasks drops the names of environments and tasks, whose words say
// nothing about the size of the experiment.
func withoutTasks(c *Command, text string) string {
	for i, a := range c.Args {
		name, val, eq := strings.Cut(a, "=")
		if !eq && i+1 < len(c.Args) {
			val = c.Args[i+1]
		}
		if val != "" && taskFlagRE.MatchString(name) {
			text = strings.ReplaceAll(text, val, "")
		}
	}
	return text
}

// billions is the largest size in billions of parameters that a text names.
func billions(text string) float64 {
	most := 0.0
	for _, m := range sizeRE.FindAllStringSubmatch(text, -1) {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil && v < 2000 {
			most = max(most, v)
		}
	}
	return most
}

func (k *Candidate) costScore(text string) {
	c := k.Command
	if c.Inner != nil {
		text += " " + strings.Join(c.Inner.Args, " ")
	}
	if b := billions(text); b > 1 {
		k.add(-3*math.Log2(b), "names a large model")
		k.Full += math.Log2(b)
	}
	if c.GPUs > 1 {
		k.add(-9-4*math.Log2(float64(c.GPUs)), "asks for "+strconv.Itoa(c.GPUs)+" processes")
		k.Full += 10 + math.Log2(float64(c.GPUs))
	}
	if c.Nodes > 1 {
		k.add(-40, "asks for several nodes")
		k.Full -= 5
	}
	text = withoutTasks(c, text)
	if n := len(bigRE.FindAllString(text, -1)); n > 0 {
		k.add(-6*float64(min(n, 2)), "names a large model or data set")
		k.Full += 3
	}
	if smallRE.MatchString(text) {
		k.add(5, "")
		k.Full -= 4
	}
	switch {
	case k.Seconds == 0:
	case k.Seconds <= 3600:
		k.add(14, "states a short duration")
		k.Full -= 2
	case k.Seconds > 24*3600:
		k.add(-24, "states a long duration")
		k.Full += 8
	case k.Seconds > 6*3600:
		k.add(-12, "states a long duration")
		k.Full += 6
	}
	if k.Route == "reduced_training" {
		k.add(-4, "")
		k.Full += 8
	}
	if k.Smoke {
		k.Full -= 20
	}
	if k.Route == "demo" {
		k.Full -= 12
	}
	if c.Missing != "" {
		k.Full -= 40
	}
}
