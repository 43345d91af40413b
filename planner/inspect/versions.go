package inspect

import (
	"path"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

var (
	cudaTagRE   = regexp.MustCompile(`cuda[:\-_]?(\d+\.\d+)`)
	pythonTagRE = regexp.MustCompile(`^(?:docker\.io/)?python:(\d+\.\d+)`)
	torchTagRE  = regexp.MustCompile(`pytorch/pytorch:(\d+\.\d+(?:\.\d+)?)`)
	cudaBuildRE = regexp.MustCompile(`cuda_?(\d{2}\.\d|\d{3})`)

	localCUDARE = regexp.MustCompile(`\+cu(\d{2,3})\b|/whl/(?:nightly/)?cu(\d{2,3})\b|\[cuda(\d{2})`)

	prosePythonRE = regexp.MustCompile(`(?i)\bpython\s*(?:version\s*)?(>=|==|=|<=|>|~=|≥)?\s*v?((?:2\.7|3\.\d{1,2})(?:\.\d+)?)\b\s*(\+|or (?:later|higher|above|newer))?`)
	proseCUDARE   = regexp.MustCompile(`(?i)\bcuda(?:\s*toolkit|\s*version)?\s*(>=|==|=|≥|v)?\s*(\d{1,2}\.\d)\b`)
	proseFrameRE  = regexp.MustCompile(`(?i)\b(pytorch|torch|tensorflow(?:-gpu)?|jax)\s*(?:version\s*)?(>=|==|=|<=|>|~=|≥|v)?\s*(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)\b\s*(\+|or (?:later|higher|above|newer))?`)
)

// environmentRE are words by which a sentence says what the authors used.
var environmentRE = regexp.MustCompile(`(?i)\b(?:tested|train(?:ed)? (?:with|on)|develop\w*|implement\w*|environment|requir\w*|install\w*|depend\w*|prerequisites?|verified|conducted|ran|need\w*|support\w*|compatible|ubuntu|cuda|python)\b`)

var historyRE = regexp.MustCompile(`(?i)^(?:changelog|changes|history|news|releases?)\b`)

// frameworkOf names the framework that a distribution is.
var frameworkOf = map[string]string{
	"torch": "pytorch", "pytorch": "pytorch", "pytorch-gpu": "pytorch", "tensorflow": "tensorflow", "tensorflow-gpu": "tensorflow",
	"tensorflow-cpu": "tensorflow", "tf-nightly": "tensorflow", "jax": "jax", "jaxlib": "jax", "mxnet": "mxnet", "paddlepaddle": "paddle",
	"paddlepaddle-gpu": "paddle", "mlx": "mlx", "mindspore": "mindspore", "chainer": "chainer", "theano": "theano",
}

// FrameworkOf is the numerical framework that a distribution or an imported
// module is, or "".
func FrameworkOf(name string) string { return frameworkOf[NormalName(name)] }

// versions gathers what is said about Python, CUDA and frameworks: declared
// files first in the order they stand, then prose.
func (f *Facts) versions() {
	for i := range f.Dependencies {
		d := &f.Dependencies[i]
		if d.Python.Spec != "" {
			f.Python = append(f.Python, d.Python)
		}
		if d.CUDA.Spec != "" {
			f.CUDA = append(f.CUDA, d.CUDA)
		}
		for _, e := range append(d.Entries[:len(d.Entries):len(d.Entries)], d.Indexes...) {
			if m := localCUDARE.FindStringSubmatch(e.Spec); m != nil {
				f.CUDA = append(f.CUDA, Version{Spec: cudaDigits(m[1] + m[2] + m[3]), Kind: spec.Published, At: e.Evidence(d.Path)})
			}
			if fw := frameworkOf[e.Name]; fw != "" {
				f.Frameworks = append(f.Frameworks, Version{Name: fw, Spec: e.VersionOf(), Kind: spec.Published, At: e.Evidence(d.Path)})
			}
		}
	}
	for i := range f.Docs {
		if doc := &f.Docs[i]; !doc.CI && !doc.Remarks && depth(doc.Path) <= 3 && !historyRE.MatchString(path.Base(doc.Path)) {
			f.proseVersions(doc)
		}
	}
}

// cudaDigits turns "118" into "11.8" and "11" into "11".
func cudaDigits(s string) string {
	if len(s) == 3 {
		return s[:2] + "." + s[2:]
	}
	return s
}

func (f *Facts) proseVersions(doc *Document) {
	for i := range doc.Doc.Paras {
		p := &doc.Doc.Paras[i]
		if len(p.Text) > 5000 {
			continue
		}
		at := func(m []int) spec.Evidence {
			return spec.Evidence{File: doc.Path, Line: p.LineAt(m[0]), Quote: clip(around(p.Text, m[0], m[1]))}
		}
		for _, m := range prosePythonRE.FindAllStringSubmatchIndex(p.Text, 4) {
			f.Python = append(f.Python, Version{Spec: rangeOf(p.Text, m, 2, 4, 6), Kind: spec.Published, At: at(m)})
		}
		for _, m := range proseCUDARE.FindAllStringSubmatchIndex(p.Text, 4) {
			f.CUDA = append(f.CUDA, Version{Spec: p.Text[m[4]:m[5]], Kind: spec.Published, At: at(m)})
		}
		for _, m := range proseFrameRE.FindAllStringSubmatchIndex(p.Text, 4) {
			if h, _ := doc.Doc.Section(p.Line); m[4] < 0 && !environmentRE.MatchString(around(p.Text, m[0], m[1])) && !depHeadingRE.MatchString(h.Text) {
				continue // speaks of a release, not of what to install
			}
			name := frameworkOf[strings.ToLower(p.Text[m[2]:m[3]])]
			f.Frameworks = append(f.Frameworks, Version{Name: name, Spec: rangeOf(p.Text, m, 4, 6, 8), Kind: spec.Published, At: at(m)})
		}
	}
}

// rangeOf turns operator, version and a trailing "+" or "or later" into a range.
func rangeOf(s string, m []int, op, version, more int) string {
	v := s[m[version]:m[version+1]]
	o := ""
	if m[op] >= 0 {
		o = s[m[op]:m[op+1]]
	}
	switch {
	case m[more] >= 0, o == ">=", o == "≥":
		return ">=" + v
	case o == "<=", o == ">", o == "~=":
		return o + v
	}
	return v
}

func around(s string, i, j int) string {
	i, j = max(0, i-60), min(len(s), j+60)
	for i > 0 && s[i]&0xC0 == 0x80 {
		i--
	}
	for j < len(s) && s[j]&0xC0 == 0x80 {
		j++
	}
	return s[i:j]
}

// licences are phrases that only one licence text holds, more specific first.
var licences = []struct{ phrase, id string }{
	{"apache license, version 2.0", "Apache-2.0"}, {"apache license", "Apache-2.0"},
	{"gnu affero general public license", "AGPL-3.0"}, {"gnu lesser general public license", "LGPL-3.0"},
	{"gnu general public license version 3", "GPL-3.0"}, {"version 3, 29 june 2007", "GPL-3.0"}, {"version 2, june 1991", "GPL-2.0"},
	{"attribution-noncommercial", "CC-BY-NC-4.0"}, {"attribution 4.0 international", "CC-BY-4.0"},
	{"neither the name of", "BSD-3-Clause"}, {"redistribution and use in source and binary forms", "BSD-2-Clause"},
	{"permission is hereby granted, free of charge", "MIT"}, {"mozilla public license", "MPL-2.0"}, {"this is free and unencumbered software", "Unlicense"},
}

func (r *reader) licence() error {
	for _, f := range r.facts.Files {
		base := strings.ToLower(path.Base(f.Path))
		if f.Link || depth(f.Path) > 0 || !strings.HasPrefix(base, "licen") && !strings.HasPrefix(base, "copying") {
			continue
		}
		src, ok, err := r.text(f.Path)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		r.facts.LicencePath = f.Path
		low := strings.Join(strings.Fields(strings.ToLower(src[:min(len(src), 20_000)])), " ")
		for _, l := range licences {
			if strings.Contains(low, l.phrase) {
				r.facts.Licence = l.id
				return nil
			}
		}
	}
	return nil
}
