package recipe

import (
	"path"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// Tie finds the collect rules for a claimed metric among the numbers that a
// run gives, best first. The second result says why there are none.
func Tie(c *claim.Claim, metric string, numbers []Number) (rules []spec.Collect, from []Number, why string) {
	best := 0
	for _, n := range numbers {
		best = max(best, claim.Match(c.Key, n.Key))
	}
	if best == 0 {
		return nil, nil, "nothing that the run prints or writes is named like it"
	}
	label := ""
	for _, n := range numbers {
		if claim.Match(c.Key, n.Key) != best {
			continue
		}
		name := leafName(n.Label)
		if label == "" {
			label = name
		} else if name != label {
			return nil, nil, "several numbers could be meant: " + label + " and " + name
		}
	}
	pointers := map[string]string{}
	for _, n := range numbers {
		if claim.Match(c.Key, n.Key) != best {
			continue
		}
		scale, unit, ok := convert(c, n)
		if !ok {
			return nil, nil, "the unit of " + n.Label + " does not show"
		}
		if n.Rule.Kind == "json" {
			if p, dup := pointers[n.Rule.Path]; dup && p != n.Rule.Pointer {
				return nil, nil, "several keys of " + n.Rule.Path + " could be meant: " + p + " and " + n.Rule.Pointer
			}
			pointers[n.Rule.Path] = n.Rule.Pointer
		}
		r := n.Rule
		r.Metric, r.Scale, r.Unit = metric, scale, unit
		if c.Best && r.Select == "" && r.Kind == "stdout_regex" {
			r.Select = map[string]string{"higher": "max", "lower": "min"}[claim.Better(c.Key.Base)]
		}
		rules = append(rules, r)
		from = append(from, n)
		if len(rules) >= 4 {
			break
		}
	}
	return rules, from, ""
}

// leafName compares labels of a file's key and of a printed line: the last
// word that carries meaning, without spelling.
func leafName(label string) string {
	k, _ := claim.ParseLabel(label)
	return k.String()
}

// convert says how the number becomes the claim's unit. A number whose unit
// does not show is taken as it is when the claim has no percent sign, or when
// a shown value lies in the claim's own range of size.
func convert(c *claim.Claim, n Number) (scale float64, unit string, ok bool) {
	percent := c.Unit == "%" || c.Unit == "" && claim.Percent(c.Key.Base) && c.Value != nil && *c.Value > 1
	fraction := n.Unit == "fraction" || n.Unit == "ratio?" && claim.Percent(c.Key.Base) && c.Key.Effect == ""
	switch {
	case percent && n.Unit == "%":
		return 0, c.Unit, true
	case percent && fraction:
		return 100, c.Unit, true
	case percent && n.Shown && n.Stale != 0:
		if n.Stale > -1 && n.Stale < 1 && magnitude(c) > 1.5 {
			return 100, c.Unit, true
		}
		return 0, c.Unit, true
	case percent && c.Key.Effect != "":
		return 0, "", false
	case percent:
		return 0, "", true // taken as read; the unit stays open and is said so
	case !percent && n.Unit == "%" && c.Unit == "" && claim.Percent(c.Key.Base):
		return 0.01, "", true
	}
	return 0, c.Unit, true
}

func magnitude(c *claim.Claim) float64 {
	for _, v := range []*float64{c.Value, c.Hi, c.Lo} {
		if v != nil {
			if *v < 0 {
				return -*v
			}
			return *v
		}
	}
	return 0
}

// linked says that the row of a claim links to a checkpoint that the command
// names.
func linked(c *Command, cl *claim.Claim) bool {
	for _, l := range cl.Links {
		base := path.Base(l)
		if !checkpointArgRE.MatchString(base) && !strings.HasSuffix(base, ".bin") {
			continue
		}
		for _, a := range c.Args {
			if _, v, ok := strings.Cut(a, "="); ok {
				a = v
			}
			if a == l || path.Base(a) == base {
				return true
			}
		}
	}
	return false
}

// rowOf says that a row of a table is about a command: every name of the row,
// at least one of them of three letters, stands among the command's arguments,
// and so does every setting with its value.
func rowOf(c *Command, cl *claim.Claim) bool { return named(c, cl) && settled(c, cl) }

// named says so of the names alone.
func named(c *Command, cl *claim.Claim) bool {
	text := squashed(strings.Join(c.Argv, " "))
	if c.Script != nil {
		text = squashed(c.Display)
	}
	text += " " + squashed(c.Comment) + " " + squashed(lastLine(c.Context)) // what the words right before it say it does
	hits := 0
	for _, n := range cl.Names {
		switch s := squashed(n); {
		case strings.Contains(cl.Text, n) && rowNumberRE.MatchString(strings.TrimSpace(n)):
		case len(s) < 3 || strings.Contains(n, "://") || linkNameRE.MatchString(n) || !nameCellRE.MatchString(n) || rowNumberRE.MatchString(n):
		case strings.Contains(text, s) || visionName(text, n):
			hits++
		default:
			return false
		}
	}
	return hits > 0
}

// prints says that a program prints something that it calls by a metric's name.
func prints(f *inspect.Facts, p, base string) bool {
	m := f.Modules[p]
	if m == nil {
		return false
	}
	for _, pr := range m.Prints {
		for _, part := range pr.Parts {
			for _, mt := range claim.Mentions(part.Text + " " + part.Expr) {
				if mt.Key.Base == base {
					return true
				}
			}
		}
	}
	return false
}

// settingsOf says that a file of settings is the one that a command names.
func settingsOf(f *inspect.Facts, c *Command, file string) bool {
	ext := path.Ext(file)
	if ext != ".py" && ext != ".yaml" && ext != ".yml" || file == c.Entry {
		return false
	}
	base := strings.TrimSuffix(path.Base(file), ext)
	for _, a := range c.core().Args {
		if _, v, ok := strings.Cut(a, "="); ok {
			a = v
		}
		if path.Join(c.Cwd, a) == file || path.Base(a) == base || path.Base(a) == path.Base(file) && strings.HasSuffix(file, a) {
			return true
		}
	}
	return false
}

// visionName says that a command spells out a name such as "ViT-S/16": the size
// as a word and the patch as a number.
func visionName(text, name string) bool {
	m := visionRE.FindStringSubmatch(name)
	if m == nil || !strings.Contains(text, strings.ToLower(m[1])+visionSize[strings.ToLower(m[2])]) {
		return false
	}
	return strings.Contains(text, "patch"+m[3]) || strings.Contains(text, "patchsize"+m[3]) || strings.Contains(text, visionSize[strings.ToLower(m[2])]+m[3])
}

var (
	visionRE    = regexp.MustCompile(`(?i)^(ViT|DeiT|BEiT|Swin|MViT)-?(Ti|T|S|B|L|H|G)[/\-]?p?(\d+)$`)
	visionSize  = map[string]string{"ti": "tiny", "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
	linkNameRE  = regexp.MustCompile(`(?i)^(?:[\w\-]+ )?(?:links?|logs?|models?|weights?|checkpoints?|ckpts?|args|configs?|backbone|download|here|url|[\w\-]+\.(?:dev|com|org|io|ai))(?:\W+(?:links?|logs?|models?|download|here))*$`)
	nameCellRE  = regexp.MustCompile(`[A-Za-z]{2}`)
	rowNumberRE = regexp.MustCompile(`^[-+~≈]?\d[\d.,]*\s*(?:%|±|\+/-|[smh]\b|[A-Za-z]{0,3}$)`)
)

func squashed(s string) string {
	return strings.NewReplacer("-", "", "_", "", " ", "", "/", "", ".py:", "", ":", "", ",", "").Replace(strings.ToLower(s))
}

// Near says how close a claim of the repository stands to a command: 3 for the
// output that the document shows for it, 2 for prose around it, 1 for the same
// section, 0 otherwise.
func Near(f *inspect.Facts, c *Command, file string, cl *claim.Claim) int {
	if linked(c, cl) {
		return 3
	}
	if c.Doc < 0 || f.Docs[c.Doc].Path != file {
		switch {
		case file == c.Entry && strings.HasSuffix(file, ".ipynb"):
			return 3 // a notebook and its own output
		case file == c.core().Entry && file != "" && prints(f, file, cl.Key.Base):
			return 2 // what a program says of itself
		}
		if settingsOf(f, c, file) {
			return 2 // what the settings that it runs with say of themselves
		}
		return 0
	}
	d := &f.Docs[c.Doc]
	if cl.Source == claim.Output {
		for _, o := range d.Outputs {
			if o.Line == cl.Line && near(f, d, c, o.Block, o.Line) {
				return 3
			}
		}
		return 0
	}
	if cl.Source == claim.Table && rowOf(c, cl) {
		return 2
	}
	if strings.Contains(c.Context, cl.Text) || strings.Contains(claim.Clean(c.Context), cl.Text) {
		return 2
	}
	if cl.Line > c.Line && cl.Line < c.Line+12 && cl.Source == claim.Prose {
		for _, mc := range d.Commands {
			if mc.Block >= 0 && mc.Block != c.Block && mc.Line > c.Line && mc.Line < cl.Line {
				return 0
			}
		}
		return 2
	}
	return 0
}
