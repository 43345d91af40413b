package inspect

import (
	"path"
	"strings"

	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

// join resolves a path that stands in file p against the root of the checkout.
func join(p, rel string) string { return path.Join(path.Dir(p), rel) }

// parseRequirements reads pip's requirements file format
// (pip documentation, "Requirements File Format").
func parseRequirements(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Requirements, Manager: "pip"}
	lines := strings.Split(strings.ReplaceAll(src, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		l := lines[i]
		for strings.HasSuffix(l, "\\") && i+1 < len(lines) {
			i++
			l = strings.TrimSuffix(l, "\\") + " " + strings.TrimSpace(lines[i])
		}
		d.requirementLine(strings.TrimSpace(l), at)
		if len(d.Entries) > 5000 {
			d.Broken = "more than 5000 entries"
			break
		}
	}
	return d
}

func (d *Dependency) requirementLine(l string, at int) {
	quote := l
	if i := strings.Index(l, " #"); i >= 0 {
		l = strings.TrimSpace(l[:i])
	}
	if i := strings.Index(l, " --hash"); i >= 0 {
		l = strings.TrimSpace(l[:i])
	}
	if l == "" || l[0] == '#' {
		return
	}
	opt, val := option(l)
	switch opt {
	case "":
		e := ParseRequirement(l)
		e.Line, e.Quote = at, quote
		if e.Name == "python" {
			d.Python = Version{Spec: e.VersionOf(), Kind: spec.Published, At: e.Evidence(d.Path)}
			return
		}
		if e.Name == "" && !strings.ContainsAny(e.Spec, "/.") {
			return // a line of prose
		}
		d.Entries = append(d.Entries, e)
	case "-r", "--requirement", "-c", "--constraint":
		d.Includes = append(d.Includes, Include{Path: join(d.Path, val), Constraint: strings.Contains(opt, "c"), Line: at})
	case "-e", "--editable":
		e := ParseRequirement(val)
		e.Spec, e.Line, e.Quote = "-e "+val, at, quote
		d.Entries = append(d.Entries, e)
	case "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--pre", "--no-index", "--trusted-host":
		d.Indexes = append(d.Indexes, Entry{Spec: strings.TrimSpace(opt + " " + val), Line: at, Quote: quote})
	}
}

// option splits "-r file", "-rfile" and "--opt=value"; opt is empty when l is a
// requirement.
func option(l string) (opt, val string) {
	if l[0] != '-' {
		return "", ""
	}
	if i := strings.IndexAny(l, " =\t"); i > 0 && (l[i] != '=' || strings.HasPrefix(l, "--")) {
		return l[:i], strings.TrimSpace(l[i+1:])
	}
	if len(l) > 2 && l[1] != '-' {
		return l[:2], strings.TrimSpace(l[2:])
	}
	return l, ""
}

func parseSetupPy(p, src string) *Dependency {
	s := python.ReadSetup(src)
	if !s.Found {
		return nil
	}
	d := &Dependency{Path: p, Kind: SetupPy, Manager: "pip", Library: true, Project: path.Dir(p), Compiles: s.Extensions}
	d.Entries = literals(s.Requires)
	for name, group := range s.Extras {
		if d.Extras == nil {
			d.Extras = map[string][]Entry{}
		}
		d.Extras[name] = literals(group)
	}
	if len(d.Entries) == 0 {
		for _, r := range s.Reads {
			d.Includes = append(d.Includes, Include{Path: join(p, r.Text), Line: r.Line})
		}
	}
	if s.PythonRequires.Text != "" {
		d.Python = Version{Spec: s.PythonRequires.Text, Kind: spec.Published, At: spec.Evidence{File: p, Line: s.PythonRequires.Line, Quote: "python_requires=" + s.PythonRequires.Text}}
	}
	for _, l := range s.Consoles {
		if c, ok := console(l.Text, p, l.Line); ok {
			d.Consoles = append(d.Consoles, c)
		}
	}
	for _, e := range s.Executes {
		d.Runs = append(d.Runs, Entry{Spec: e.Text, Line: e.Line, Quote: e.Text})
	}
	return d
}

func literals(in []python.Literal) []Entry {
	var out []Entry
	for _, l := range in {
		e := ParseRequirement(l.Text)
		if e.Name == "" || strings.HasSuffix(l.Text, ".txt") || len(l.Text) > 300 || strings.ContainsAny(l.Text, "\n") {
			continue
		}
		e.Line, e.Quote = l.Line, l.Text
		out = append(out, e)
	}
	return out
}

// parseSetupCfg reads [options] of the declarative setuptools configuration.
func parseSetupCfg(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: SetupCfg, Manager: "pip", Library: true, Project: path.Dir(p)}
	section, key := "", ""
	found := false
	for i, raw := range strings.Split(src, "\n") {
		l := strings.TrimSpace(raw)
		switch {
		case l == "" || l[0] == '#' || l[0] == ';':
			continue
		case l[0] == '[' && strings.HasSuffix(l, "]"):
			section, key = strings.Trim(l, "[]"), ""
			continue
		case raw[0] != ' ' && raw[0] != '\t':
			k, v, _ := strings.Cut(l, "=")
			key, l = strings.TrimSpace(k), strings.TrimSpace(v)
		}
		if l == "" {
			continue
		}
		switch {
		case section == "options" && key == "install_requires":
			found = true
			d.requirementLine(l, i+1)
		case section == "options" && key == "python_requires":
			found = true
			d.Python = Version{Spec: l, Kind: spec.Published, At: spec.Evidence{File: p, Line: i + 1, Quote: clip(raw)}}
		case section == "options.entry_points":
			if c, ok := console(l, p, i+1); ok && key == "console_scripts" {
				found = true
				d.Consoles = append(d.Consoles, c)
			}
		case section == "options.extras_require":
			e := ParseRequirement(l)
			e.Line, e.Quote = i+1, l
			if d.Extras == nil {
				d.Extras = map[string][]Entry{}
			}
			if e.Name != "" {
				d.Extras[key] = append(d.Extras[key], e)
			}
		}
	}
	if !found {
		return nil
	}
	return d
}

func parseApt(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Apt}
	for i, l := range strings.Split(src, "\n") {
		l, _, _ = strings.Cut(l, "#")
		for _, w := range strings.Fields(l) {
			d.System = append(d.System, Entry{Spec: w, Name: w, Line: i + 1, Quote: w})
		}
	}
	return d
}

// parsePin reads .python-version, runtime.txt, .tool-versions and mise.toml.
func parsePin(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: PythonPin}
	for i, l := range strings.Split(src, "\n") {
		t := strings.ToLower(strings.TrimSpace(l))
		v := ""
		switch base := path.Base(p); {
		case base == "runtime.txt":
			v = strings.TrimPrefix(t, "python-")
		case base == ".python-version":
			v = strings.TrimPrefix(t, "cpython@")
		case strings.HasPrefix(t, "python"):
			v = strings.Trim(strings.TrimPrefix(t, "python"), " =\"'")
		}
		if v != "" && v[0] >= '0' && v[0] <= '9' {
			d.Python = Version{Spec: v, Kind: spec.Published, At: spec.Evidence{File: p, Line: i + 1, Quote: clip(l)}}
			return d
		}
	}
	return nil
}

// parseDockerfile reads an image recipe as evidence; it is never built.
func parseDockerfile(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Dockerfile}
	lines := strings.Split(strings.ReplaceAll(src, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		l := strings.TrimSpace(lines[i])
		for strings.HasSuffix(l, "\\") && i+1 < len(lines) {
			i++
			l = strings.TrimSpace(strings.TrimSuffix(l, "\\")) + " " + strings.TrimSpace(lines[i])
		}
		word, rest, _ := strings.Cut(l, " ")
		switch strings.ToUpper(word) {
		case "FROM":
			d.image(rest, at)
		case "RUN":
			d.dockerRun(rest, at)
		}
	}
	return d
}

func (d *Dependency) image(ref string, at int) {
	ev := spec.Evidence{File: d.Path, Line: at, Quote: clip("FROM " + ref)}
	if m := cudaTagRE.FindStringSubmatch(ref); m != nil {
		d.CUDA = Version{Spec: m[1], Kind: spec.Published, At: ev}
	}
	if m := pythonTagRE.FindStringSubmatch(ref); m != nil {
		d.Python = Version{Spec: m[1], Kind: spec.Published, At: ev}
	}
	if m := torchTagRE.FindStringSubmatch(ref); m != nil {
		d.Entries = append(d.Entries, Entry{Spec: "torch==" + m[1], Name: "torch", Pinned: true, Line: at, Quote: "FROM " + ref})
	}
}

func (d *Dependency) dockerRun(cmd string, at int) {
	for _, part := range strings.Split(strings.ReplaceAll(cmd, "&&", ";"), ";") {
		in := ParseInstall(strings.TrimSpace(part))
		if in == nil {
			continue
		}
		for _, e := range in.Entries {
			e.Line, e.Quote = at, clip(part)
			if in.Tool == "apt" {
				d.System = append(d.System, e)
			} else {
				d.Entries = append(d.Entries, e)
			}
		}
		for _, f := range in.Files {
			d.Includes = append(d.Includes, Include{Path: join(d.Path, f), Line: at})
		}
	}
}
