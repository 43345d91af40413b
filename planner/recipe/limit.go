package recipe

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// limits recognise options that make a run shorter, with the value that a quick
// check gives them; a better limit stands first.
var limits = []struct {
	re    *regexp.Regexp
	value string
}{
	{regexp.MustCompile(`^(?:quick|smoke|smoke_test|fast_dev_run|dry_run|debug|sanity)$`), ""},
	{regexp.MustCompile(`^(?:max_(?:train_)?steps|total_steps|num_(?:training_|train_)?steps|max_iters?|num_iters?|iterations|max_timesteps|total_timesteps|total_episodes|total_env_steps|steps|training_steps|n_steps|max_updates?)$`), "10"},
	{regexp.MustCompile(`^(?:max_(?:train_|eval_)?(?:samples|examples)|n_examples|limit|(?:num|max|n)_(?:samples|requests|examples|instances|items|cases|problems|questions|prompts|sentences|batches|docs)|max_samples|(?:dataset|data|subset|ds|sample)_(?:size|limit|size_limit|truncation)|limit_(?:train|test|val)_batches)$`), "10"},
	{regexp.MustCompile(`^(?:epochs|num_(?:train_)?epochs|max_epochs?|train_epochs|n_epochs|num_epoch|nb_epochs?|total_epochs?)$`), "1"},
	{regexp.MustCompile(`^(?:trials|n_trials|num_(?:runs|trials|seeds)|repeats?|runs|n_seeds|seeds)$`), "1"},
}

// evalLimitRE are further options that keep the evaluation after a short
// training short.
var evalLimitRE = regexp.MustCompile(`^(?:max_(?:eval|predict|test|val|validation)_(?:samples|examples|steps|batches)|limit_(?:val|test|predict)_batches|num_eval(?:uation)?_(?:samples|episodes|steps)|eval_(?:samples|episodes|iters|steps_limit)|n_eval_episodes|eval_iters)$`)

// setting is one option that a quick check sets.
type setting struct {
	name  string // as it stands on the command line, without a value
	value string
	join  string // between name and value: "=" or ""
	file  string // that declares it
	line  int
}

// limited is the minimal command, made short: by the strongest limit that its
// program declares, that its framework or its settings know, or, where there is
// none, by a change of the line that loads the data. nil when it cannot be done.
func (b *builder) limited(minimal *Candidate) *Candidate {
	if minimal.Script != nil || len(minimal.Unbound) > 0 || minimal.Missing != "" || len(minimal.Argv) == 0 {
		return nil
	}
	if minimal.Inner != nil {
		if s := b.f.Script(minimal.Entry); s == nil || !strings.Contains(s.Text, "$@") {
			return nil // the script hands no options on
		}
	}
	core := minimal.core()
	m := b.f.Modules[core.Entry]
	if m == nil {
		return nil
	}
	for _, find := range []func(*Command, *python.Module) []setting{b.declared, b.trainer, b.composed} {
		if set := find(core, m); len(set) > 0 {
			return b.with(minimal, set)
		}
	}
	return b.fewerRows(minimal, core)
}

// declared are limits among the options that the program itself declares.
func (b *builder) declared(c *Command, m *python.Module) []setting {
	var out []setting
	at := func(fl python.Flag, value string) setting {
		s := setting{name: fl.Names[len(fl.Names)-1], value: value, file: c.Entry, line: fl.Line}
		if fl.By == "absl" {
			s.join = "="
		}
		return s
	}
	plain := func(fl python.Flag) string {
		return strings.ReplaceAll(strings.TrimLeft(fl.Names[len(fl.Names)-1], "-"), "-", "_")
	}
	usable := func(fl python.Flag) bool {
		return fl.By != "global" && strings.HasPrefix(fl.Names[len(fl.Names)-1], "-") && (fl.By != "dataclass" || dataclassFlags(m))
	}
	for _, l := range limits {
		for _, fl := range m.Flags {
			on := strings.HasPrefix(fl.Action, "store_true")
			if usable(fl) && l.re.MatchString(plain(fl)) && (l.value == "") == on {
				out = append(out, at(fl, l.value))
				break
			}
		}
		if len(out) > 0 {
			break
		}
	}
	if len(out) == 0 || out[0].value == "" {
		return out
	}
	for _, fl := range m.Flags {
		if usable(fl) && evalLimitRE.MatchString(plain(fl)) && !strings.HasPrefix(fl.Action, "store_true") && at(fl, "") != out[0] && len(out) < 4 {
			out = append(out, at(fl, "10"))
		}
	}
	return out
}

// dataclassFlags says that the fields of data classes are options of the
// command line: through transformers, tyro, simple_parsing, pyrallis or draccus.
func dataclassFlags(m *python.Module) bool {
	return calls(m.Calls, "HfArgumentParser") || calls(m.Calls, "TrlParser") || m.Calls["tyro.cli"] > 0 || m.Calls["tyro.extras.overridable_config_cli"] > 0 ||
		calls(m.Calls, "add_arguments") || m.Calls["pyrallis.parse"] > 0 || m.Calls["pyrallis.wrap"] > 0 || m.Calls["draccus.wrap"] > 0
}

// trainer are limits that the libraries bring along: the arguments of
// transformers' Trainer (transformers, training_args.py) and those of
// Lightning's (lightning, trainer/trainer.py), where the program takes them from
// the command line.
func (b *builder) trainer(c *Command, m *python.Module) []setting {
	line := func(name string) (int, bool) {
		for _, im := range m.Imports {
			if slices.Contains(im.Names, name) {
				return im.Line, true
			}
		}
		return 0, false
	}
	if calls(m.Calls, "HfArgumentParser") {
		for _, name := range []string{"TrainingArguments", "Seq2SeqTrainingArguments"} {
			if at, ok := line(name); ok {
				return []setting{{name: "--max_steps", value: "10", file: c.Entry, line: at}}
			}
		}
	}
	prefix := ""
	switch {
	case calls(m.Calls, "add_argparse_args") || calls(m.Calls, "from_argparse_args"):
		prefix = "--"
	case calls(m.Calls, "LightningCLI"):
		prefix = "--trainer."
	default:
		return nil
	}
	at, _ := line("Trainer")
	return []setting{{name: prefix + "max_epochs", value: "1", join: "=", file: c.Entry, line: at}, {name: prefix + "limit_train_batches", value: "10", join: "=", file: c.Entry, line: at},
		{name: prefix + "limit_val_batches", value: "10", join: "=", file: c.Entry, line: at}, {name: prefix + "limit_test_batches", value: "10", join: "=", file: c.Entry, line: at}}
}

// composed are limits in the configuration that Hydra composes: the keys of the
// configuration itself and of its groups (hydra, docs/advanced/override_grammar).
func (b *builder) composed(c *Command, m *python.Module) []setting {
	if m.Hydra == nil {
		return nil
	}
	keys := settingsOfHydra(b.f, c, m)
	lightning := false
	for _, k := range keys {
		lightning = lightning || k.Key == "trainer.max_epochs" || k.Key == "trainer.accelerator" || k.Key == "trainer.devices"
	}
	if lightning {
		return []setting{{name: "++trainer.max_epochs", value: "1", join: "=", file: keys[0].File, line: 1}, {name: "++trainer.limit_train_batches", value: "10", join: "=", file: keys[0].File, line: 1},
			{name: "++trainer.limit_val_batches", value: "10", join: "=", file: keys[0].File, line: 1}, {name: "++trainer.limit_test_batches", value: "10", join: "=", file: keys[0].File, line: 1}}
	}
	for _, l := range limits {
		for _, k := range keys {
			last := k.Key[strings.LastIndexByte(k.Key, '.')+1:]
			on := k.Value == "false" || k.Value == "False"
			if !l.re.MatchString(last) || (l.value == "") != on {
				continue
			}
			value := l.value
			if value == "" {
				value = "true"
			}
			return []setting{{name: k.Key, value: value, join: "=", file: k.File, line: k.Line}}
		}
	}
	return nil
}

// settingsOfHydra are the options of the configuration that a command of Hydra
// composes.
func settingsOfHydra(f *inspect.Facts, c *Command, m *python.Module) []inspect.Option {
	dir, name := path.Join(path.Dir(c.Entry), m.Hydra.Path), strings.TrimSuffix(m.Hydra.Name, ".yaml")
	arguments(c.Args, func(opt, val string) {
		switch opt {
		case "--config-path", "-cp":
			dir = path.Join(path.Dir(c.Entry), val)
		case "--config-name", "-cn":
			name = strings.TrimSuffix(val, ".yaml")
		}
	})
	return f.Composed(dir, name)
}

// with is a copy of a candidate with options set, recorded as one patch.
func (b *builder) with(k *Candidate, set []setting) *Candidate {
	c := *k.Command
	before := shell.Quote(c.Argv)
	c.Argv = slices.Clone(c.Argv)
	var names []string
	for _, s := range set {
		c.Argv = assign(c.Argv, s)
		names = append(names, s.name)
	}
	env := strings.TrimSuffix(c.Display, before)
	if env == c.Display {
		env = ""
	}
	c.Display = env + shell.Quote(c.Argv)
	c.Quoted = false
	c.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "flag", File: set[0].file, Line: set[0].line, Before: before, After: shell.Quote(c.Argv),
		Reason: fmt.Sprintf("%s limits the run to a quick check", strings.Join(names, ", "))})
	out := *k
	out.Command, out.Smoke, out.Seconds, out.Limits = &c, true, 0, "with "+strings.Join(names, ", ")+" set low"
	return &out
}

// assign sets an option in an argument vector: in place where it stands, else
// at the end.
func assign(argv []string, s setting) []string {
	bare := strings.TrimLeft(s.name, "+")
	for i, a := range argv {
		n, _, eq := strings.Cut(a, "=")
		if strings.TrimLeft(n, "+") != bare {
			continue
		}
		if eq {
			argv[i] = n + "=" + s.value
		} else if i+1 < len(argv) && s.value != "" {
			argv[i+1] = s.value
		}
		return argv
	}
	switch {
	case s.value == "":
		return append(argv, s.name)
	case s.join != "":
		return append(argv, s.name+s.join+s.value)
	}
	return append(argv, s.name, s.value)
}

// maxRowPatches bounds how many lines of the source a quick check changes.
const maxRowPatches = 3

// fewerRows is the minimal command on a hundred rows of its data, by a recorded change
// of the lines that load it: in the program itself, or in the first module it
// imports that loads any.
func (b *builder) fewerRows(k *Candidate, core *Command) *Candidate {
	for _, p := range b.f.Reach(core.Entry) {
		m := b.f.Modules[p]
		if m == nil || len(m.Rows) == 0 || strings.HasSuffix(p, ".ipynb") {
			continue
		}
		c := *k.Command
		c.Quoted = false
		c.Patches = slices.Clone(c.Patches)
		for _, r := range m.Rows[:min(len(m.Rows), maxRowPatches)] {
			c.Patches = append(c.Patches, spec.Patch{Kind: "source", File: p, Line: r.Line, Before: r.Before, After: r.After,
				Reason: r.What + " loads a hundred rows: a quick check, whose numbers are not comparable"})
		}
		out := *k
		out.Command, out.Smoke, out.Seconds, out.Limits = &c, true, 0, "on a hundred rows of its data"
		return &out
	}
	return nil
}
