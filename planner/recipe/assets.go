package recipe

import (
	"path"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/shell"
	"github.com/repromill/repromill/planner/spec"
)

var (
	checkpointArgRE = regexp.MustCompile(`(?i)\.(?:pth|pt|ckpt|safetensors|pkl)$`)
	hubIDRE         = regexp.MustCompile(`^[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*$`)
	secretRE        = regexp.MustCompile(`(?i)(?:API_?KEY|TOKEN|SECRET|PASSWORD)$`)
)

// assets lists data and weights that the command names, and the secrets that
// the code asks for.
func (b *builder) assets(c *Command, r *spec.Run) {
	prev := ""
	for _, a := range c.Args {
		val := a
		name := prev
		if k, v, ok := strings.Cut(a, "="); ok && !strings.Contains(k, "/") {
			name, val = k, v
		}
		prev = a
		switch {
		case strings.HasPrefix(val, "http") && checkpointArgRE.MatchString(val):
			r.Assets = append(r.Assets, spec.Asset{Kind: "checkpoint", Name: path.Base(val), URL: val, Access: "auto"})
		case checkpointArgRE.MatchString(val) && b.f.Has(path.Join(c.Cwd, val)):
			r.Assets = append(r.Assets, spec.Asset{Kind: "checkpoint", Name: val, Access: "in_repo", Bytes: b.f.Size(path.Join(c.Cwd, val))})
		case checkpointArgRE.MatchString(val) && !strings.ContainsAny(val, "$<{"):
			access, url := "missing", link(b.f, path.Base(val))
			if url != "" && !reaches([]string{"wget", val}) {
				access = "auto"
				r.Setup = append(r.Setup, spec.Step{Argv: []string{"wget", "-O", val, url}, Cwd: c.Cwd, Network: true})
			}
			for _, s := range r.Setup {
				if strings.Contains(strings.Join(s.Argv, " "), path.Base(val)) {
					access = "auto"
				}
			}
			r.Assets = append(r.Assets, spec.Asset{Kind: "checkpoint", Name: val, URL: url, Access: access})
		case dataRE.MatchString(val) && !strings.ContainsAny(val, "$<{*") && !outFlag(name) && !outDirRE.MatchString(name) && !in(b.f, c, val) && link(b.f, path.Base(val)) != "" && !reaches([]string{"wget", val}):
			url := link(b.f, path.Base(val))
			r.Setup = append(r.Setup, spec.Step{Argv: []string{"wget", "-O", val, url}, Cwd: c.Cwd, Network: true})
			r.Assets = append(r.Assets, spec.Asset{Kind: "dataset", Name: val, URL: url, Access: "auto"})
		case hubIDRE.MatchString(val) && strings.Contains(name, "model") && !b.f.Has(path.Join(c.Cwd, val)) && !b.f.HasDir(path.Join(c.Cwd, val)) && !strings.Contains(val, ".json") && !strings.Contains(val, ".yaml"):
			access := "auto"
			if strings.HasPrefix(strings.ToLower(val), "meta-llama/") {
				access = "gated"
			}
			r.Assets = append(r.Assets, spec.Asset{Kind: "checkpoint", Name: val, URL: "https://huggingface.co/" + val, Access: access})
		}
	}
	if calls := b.networkCalls(c.core().Entry); len(calls) > 0 {
		r.Assets = append(r.Assets, spec.Asset{Kind: "dataset", Name: "what " + strings.Join(calls[:min(3, len(calls))], ", ") + " fetches", Access: "auto"})
	}
	r.Secrets = secrets(b.f, c)
}

var urlRE = regexp.MustCompile(`https?://[^\s)\]>"']+`)

// link is the one address in the documents whose last part ends with a file's
// name.
func link(f *inspect.Facts, name string) string {
	found := ""
	for i := range f.Docs {
		for _, p := range f.Docs[i].Doc.Paras {
			if !strings.Contains(p.Text, name) {
				continue
			}
			for _, u := range urlRE.FindAllString(p.Text, -1) {
				u = strings.TrimRight(u, "*_`.,;")
				if !strings.HasSuffix(u, name) || u == found {
					continue
				}
				if found != "" {
					return ""
				}
				found = u
			}
		}
	}
	return found
}

// secrets are the environment variables with a secret that a run fails
// without.
func secrets(f *inspect.Facts, c *Command) []string {
	var out []string
	for _, p := range f.Reach(c.core().Entry) {
		m := f.Modules[p]
		if m == nil {
			continue
		}
		for _, e := range m.Needs {
			if secretRE.MatchString(e.Text) && !strings.HasPrefix(e.Text, "WANDB") && !contains(out, e.Text) {
				out = append(out, e.Text)
			}
		}
	}
	for i, p := range f.Reach(c.core().Entry) {
		m := f.Modules[p]
		if m == nil {
			continue
		}
		for _, im := range m.Imports {
			top, _, _ := strings.Cut(im.Name, ".")
			key := serviceKeys[top]
			if key != "" && !im.Guard && im.Level == 0 && (i == 0 || !im.Inner) && !contains(out, key) {
				out = append(out, key)
			}
		}
	}
	return out
}

// serviceKeys are the variables that clients of paid services read by
// themselves.
var serviceKeys = map[string]string{"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "cohere": "CO_API_KEY"}

var dataWordRE = regexp.MustCompile(`(?i)data|imagenet|coco|path[_/\- ]to|corpus|\bdir\b|_dir|root`)

// status says whether a run can go by itself, and what stands against it.
func (b *builder) status(k *Candidate, r *spec.Run) {
	c := k.Command
	r.Status = "auto"
	need := func(what, name, status, why string) {
		if r.Status == "auto" {
			r.Status = status
		}
		r.Reasons = append(r.Reasons, why)
		r.Needs = append(r.Needs, spec.Need{What: what, Name: name, Status: status, Reason: why})
	}
	if c.Missing != "" {
		need("entry", c.Entry, "blocked", c.Missing)
	}
	for _, p := range c.Unbound {
		status := "blocked"
		if dataWordRE.MatchString(p) {
			status = "manual_data"
		}
		need("placeholder", p, status, "unbound placeholder "+p)
	}
	for _, s := range foreign(b.f, c) {
		need("setting", strings.Fields(s)[0], "manual_data", s)
	}
	for _, p := range k.Lacks {
		name, _, _ := strings.Cut(p, ",") // further words say why it is looked for
		need("file", name, "manual_data", p+" is not in the repository, and no step makes it")
	}
	for _, a := range r.Assets {
		switch a.Access {
		case "gated":
			need(a.Kind, a.Name, "gated", a.Name+" needs an accepted licence and a token")
		case "missing":
			need(a.Kind, a.Name, "manual_data", a.Name+" is not in the repository, and no step fetches it")
		case "auto":
			r.Reasons = append(r.Reasons, "needs the network: "+a.Name)
		}
	}
	for _, s := range r.Secrets {
		need("secret", s, "gated", "the code fails without "+s)
	}
	for _, s := range r.Setup {
		if s.Network {
			r.Reasons = append(r.Reasons, "a step before it needs the network: "+shell.Quote(s.Argv))
		}
	}
	if k.Route == "demo" {
		need("result", "", "smoke_only", "a demonstration: it shows that the code runs and gives no number to compare")
	}
}
