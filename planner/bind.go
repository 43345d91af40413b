package planner

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

// InputError is a wish that the plan cannot meet, with the fix.
type InputError struct{ Msg, Fix string }

func (e *InputError) Error() string { return e.Msg + "; " + e.Fix }

// UserError returns the fix.
func (e *InputError) UserError() string { return e.Fix }

// Bind puts what a person gave in place of what the planner could not know,
// and seals the plan again. Of each binding the caller fills in Kind, Name, and
// Value, URL or Path with SHA256, Files and Bytes. A Name is one that the needs
// of the plan show, the placeholder itself, or for data and checkpoints
// "./PATH", which shows the content at that path of the checkout.
//
// Binding a name again replaces its content. The error is an [InputError].
func Bind(p *spec.Plan, given []spec.Binding) error {
	for _, g := range given {
		if err := bindOne(p, g); err != nil {
			return err
		}
	}
	if len(given) > 0 {
		settle(p)
	}
	Flags(p)
	p.Seal()
	return nil
}

func bindOne(p *spec.Plan, g spec.Binding) error {
	if i := slices.IndexFunc(p.Bindings, func(b spec.Binding) bool {
		return b.Name == g.Name || b.For == g.Name || b.Place != "" && "./"+b.Place == g.Name
	}); i >= 0 {
		return rebind(&p.Bindings[i], g)
	}
	list := targets(p)
	t := find(list, g.Name)
	if t == nil {
		place, ok := strings.CutPrefix(g.Name, "./")
		if !ok || g.Kind == "set" {
			return unknown(g, list)
		}
		return bindPlace(p, g, place)
	}
	if g.Kind == "set" && t.what != "placeholder" {
		return &InputError{fmt.Sprintf("--set %s: %s is a %s, not a placeholder", g.Name, t.text, t.what), "give it with " + t.flag()}
	}
	b := g
	b.Name, b.For, b.Runs = t.name, t.text, nil
	for i := range p.Runs {
		r := &p.Runs[i]
		if !slices.Contains(t.runs, r.ID) {
			continue
		}
		if err := bindRun(r, t, &b); err != nil {
			return err
		}
		b.Runs = append(b.Runs, r.ID)
	}
	p.Bindings = append(p.Bindings, b)
	return nil
}

// unknown lists what could have been meant.
func unknown(g spec.Binding, list []*target) error {
	var known []string
	for _, t := range list {
		if g.Kind != "set" || t.what == "placeholder" {
			known = append(known, t.flag())
		}
	}
	flag, fix := "--"+g.Kind+" "+g.Name, "the plan knows: "+strings.Join(known, ", ")
	if len(known) == 0 {
		fix = "leave it out: the plan holds no placeholder"
		if g.Kind != "set" {
			fix = "to show content at a path of the checkout, write --" + g.Kind + " ./PATH=" + map[string]string{"data": "DIR", "checkpoint": "PATH"}[g.Kind]
		}
	}
	return &InputError{fmt.Sprintf("%s: nothing in the plan is called %q", flag, g.Name), fix}
}

// rebind gives a name that is bound already another content.
func rebind(b *spec.Binding, g spec.Binding) error {
	if b.Kind == "set" && g.Kind == "set" && b.Value == g.Value {
		return nil
	}
	if b.Kind == "set" || g.Kind == "set" {
		return &InputError{fmt.Sprintf("%s is bound already, by --%s", b.Name, b.Kind), "plan the target again to give it another value"}
	}
	b.Kind, b.Path, b.URL, b.SHA256, b.Files, b.Bytes = g.Kind, g.Path, g.URL, g.SHA256, g.Files, g.Bytes
	return nil
}

// bindPlace shows content at a path of the checkout, to every run.
func bindPlace(p *spec.Plan, g spec.Binding, place string) error {
	b := g
	b.Place = path.Clean(place)
	if b.Place == "." || b.Place == ".." || strings.HasPrefix(b.Place, "../") || path.IsAbs(b.Place) || strings.ContainsAny(b.Place, "\\\x00") {
		return &InputError{fmt.Sprintf("--%s %s: the path leaves the checkout", g.Kind, g.Name), "name a path below the checkout, such as ./data/train"}
	}
	b.Name, b.For, b.Runs = shortName(b.Place, ""), b.Place, nil
	for n, base := 2, b.Name; slices.ContainsFunc(p.Bindings, func(o spec.Binding) bool { return o.Name == b.Name }); n++ {
		b.Name = fmt.Sprintf("%s-%d", base, n)
	}
	for i := range p.Runs {
		b.Runs = append(b.Runs, p.Runs[i].ID)
	}
	p.Bindings = append(p.Bindings, b)
	return nil
}

// bindRun rewrites one run. What its command does not name is shown at the
// path under which the code looks for it.
func bindRun(r *spec.Run, t *target, b *spec.Binding) error {
	word, shown := b.Token(), b.Path
	switch {
	case b.Kind == "set":
		word, shown = b.Value, b.Value
	case b.URL != "":
		shown = b.URL
	}
	if r.Script != nil && !plainRE.MatchString(shown) && b.URL == "" {
		return &InputError{fmt.Sprintf("run %s is a shell script, into which %q cannot be put", r.ID, shown),
			"use a path or value of letters, digits and _./:@=+,- only"}
	}
	olds := []string{t.text}
	for _, a := range r.Assets {
		if t.what != "placeholder" && a.Name == t.text && a.URL != "" {
			olds = append(olds, a.URL)
		}
	}
	supplied(r, t.text) // first, while the steps still name what they fetch
	r.Placeholders = without(r.Placeholders, func(s string) bool { return s == t.text })
	found := false
	for _, old := range olds {
		found = rewrite(r, old, word, t.what != "placeholder") || found
	}
	switch {
	case found:
		r.Quoted = false
	case t.what == "placeholder":
		return &InputError{fmt.Sprintf("run %s lists the placeholder %s, which its command does not hold", r.ID, t.text), "correct the plan"}
	case path.IsAbs(t.text) || strings.HasPrefix(path.Clean(t.text), "..") || strings.Contains(t.text, "://"):
		return &InputError{fmt.Sprintf("nothing in the command of run %s names %s", r.ID, t.text), "show it where the code looks for it, with --" + b.Kind + " ./PATH=PATH"}
	default:
		place := path.Join(r.Cwd, t.text)
		if b.Place != "" && b.Place != place {
			return &InputError{fmt.Sprintf("%s is looked for at %s and at %s", t.text, b.Place, place), "bind both, as ./" + b.Place + " and ./" + place}
		}
		b.Place = place
	}
	return nil
}

// supplied takes away what stood against a run for want of a thing, and the
// steps that would have fetched it.
func supplied(r *spec.Run, name string) {
	drop := func(reason string) {
		r.Reasons = without(r.Reasons, func(s string) bool { return s == reason })
	}
	for _, n := range r.Needs {
		if n.Name == name {
			drop(n.Reason)
		}
	}
	r.Needs = without(r.Needs, func(n spec.Need) bool { return n.Name == name })
	r.Assets = slices.Clone(r.Assets)
	for i := range r.Assets {
		a := &r.Assets[i]
		if a.Name != name {
			continue
		}
		a.Access = "bound"
		drop("needs the network: " + a.Name)
		r.Setup = without(r.Setup, func(s spec.Step) bool {
			text := strings.Join(s.Argv, " ")
			fetches := s.Network && (strings.Contains(text, path.Base(a.Name)) || a.URL != "" && strings.Contains(text, a.URL))
			if fetches {
				drop("a step before it needs the network: " + shell.Quote(s.Argv))
			}
			return fetches
		})
	}
}

// typed is a run's command as a person would type it. What the runner replaces
// is not quoted, as it stands for plain words.
func typed(r *spec.Run) string {
	quote := func(words []string) string {
		words = slices.Clone(words)
		for i := range words {
			words[i] = tokenRE.ReplaceAllString(words[i], "@@$1@@")
		}
		return plainTokenRE.ReplaceAllString(shell.Quote(words), "{$1}")
	}
	var pre strings.Builder
	for _, k := range slices.Sorted(maps.Keys(r.Env)) {
		pre.WriteString(k + "=" + quote([]string{r.Env[k]}) + " ")
	}
	return pre.String() + quote(r.Argv)
}

var (
	tokenRE      = regexp.MustCompile(`\{(bind:[A-Za-z0-9_.-]+|seed)\}`)
	plainTokenRE = regexp.MustCompile(`@@(bind:[A-Za-z0-9_.-]+|seed)@@`)
)

// without is a list without some of its elements. The list itself stays as it
// is, since runs of one command share theirs.
func without[T any](list []T, is func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), is)
}

// rewrite puts a word in place of another in everything that a run executes,
// and says whether it stood anywhere. whole asks for a whole argument or value.
func rewrite(r *spec.Run, old, word string, whole bool) (found bool) {
	put := func(s string) string {
		out, in := s, false
		if !whole {
			out, in = replace(s, old, word)
		} else if name, val, eq := strings.Cut(s, "="); s == old {
			out, in = word, true
		} else if eq && val == old {
			out, in = name+"="+word, true
		}
		found = found || in
		return out
	}
	argv := slices.Clone(r.Argv)
	for i := range argv {
		argv[i] = put(argv[i])
	}
	r.Argv = argv
	r.Setup = slices.Clone(r.Setup)
	for i := range r.Setup {
		r.Setup[i].Argv = slices.Clone(r.Setup[i].Argv)
		for j := range r.Setup[i].Argv {
			r.Setup[i].Argv[j] = put(r.Setup[i].Argv[j])
		}
	}
	env := make(map[string]string, len(r.Env))
	for k, v := range r.Env {
		env[k] = put(v)
	}
	if r.Env = env; len(env) == 0 {
		r.Env = nil
	}
	if found && len(r.Argv) > 0 {
		r.Command = typed(r)
	}
	if s := r.Script; s != nil {
		r.Command, _ = replace(r.Command, old, word)
		text, in := replace(s.Text, old, word)
		found = found || in
		c := *s
		if c.Text = text; c.SHA256 != "" {
			sum := sha256.Sum256([]byte(text))
			c.SHA256 = hex.EncodeToString(sum[:])
		}
		r.Script = &c
	}
	return found
}

var plainRE = regexp.MustCompile(`^[A-Za-z0-9_./:@=+,-]*$`)

// replace puts a word in place of a placeholder inside another word. A
// placeholder that looks like any other word, such as N, is replaced only where
// it is a word of the value and not part of an option's name.
func replace(s, ph, word string) (string, bool) {
	if ph == "" {
		return s, false
	}
	if name, ok := strings.CutPrefix(ph, "${"); ok {
		name = strings.TrimSuffix(name, "}")
		out := strings.ReplaceAll(s, ph, word)
		out = regexp.MustCompile(`\$`+regexp.QuoteMeta(name)+`\b`).ReplaceAllLiteralString(out, word)
		return out, out != s
	}
	if !wordsRE.MatchString(ph) {
		return strings.ReplaceAll(s, ph, word), strings.Contains(s, ph)
	}
	head := ""
	if name, val, eq := strings.Cut(s, "="); eq && !strings.ContainsAny(s, " \n") {
		head, s = name+"=", val
	} else if strings.HasPrefix(s, "-") && !strings.ContainsAny(s, " \n") {
		return s, false
	}
	found := false
	re := regexp.MustCompile(`(^|[^A-Za-z0-9_])` + ph + `($|[^A-Za-z0-9_])`)
	for re.MatchString(s) {
		next := re.ReplaceAllStringFunc(s, func(m string) string {
			g := re.FindStringSubmatch(m)
			return g[1] + "\x00" + g[2]
		})
		s, found = next, true
	}
	return head + strings.ReplaceAll(s, "\x00", word), found
}

// settle gives the runs the status that is left, and selects the minimal run
// when nothing stands against it any more.
func settle(p *spec.Plan) {
	for i := range p.Runs {
		r := &p.Runs[i]
		lacking := slices.ContainsFunc(r.Assets, func(a spec.Asset) bool { return a.Access == "manual" || a.Access == "gated" || a.Access == "missing" })
		switch {
		case len(r.Needs) > 0:
			r.Status = r.Needs[0].Status
		case len(r.Placeholders) == 0 && !lacking && len(r.Secrets) == 0 && slices.Contains([]string{"manual_data", "gated", "blocked"}, r.Status):
			r.Status = "auto"
		}
	}
	if slices.ContainsFunc(p.Runs, func(r spec.Run) bool { return r.Selected }) {
		return
	}
	for i := range p.Runs {
		r := &p.Runs[i]
		if r.Kind != "minimal" || r.Status != "auto" || len(r.Placeholders) > 0 {
			continue
		}
		r.Selected = true
		p.Warnings = slices.DeleteFunc(p.Warnings, func(w spec.Warning) bool { return w.Code == "nothing_selected" })
		if len(r.Collect) == 0 {
			p.Warnings = append(p.Warnings, nothingToCollect(r))
		}
		return
	}
}
