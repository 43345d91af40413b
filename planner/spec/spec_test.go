package spec

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ptr[T any](v T) *T { return &v }

// fill sets every field of v, recursively, to a value that is not zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, *n%60, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		if e.Kind() == reflect.Interface {
			e.Set(reflect.ValueOf("x"))
		} else {
			fill(e, n)
		}
		v.SetMapIndex(reflect.ValueOf("K"), e)
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n))
	}
}

// example is a valid plan in which every field of every type is set.
func example() *Plan {
	var p Plan
	n := 0
	fill(reflect.ValueOf(&p).Elem(), &n)
	p.Schema, p.Hash = SchemaV1, ""
	p.Target.Kind = "arxiv"
	p.Source.Commit = strings.Repeat("a", 40)
	p.Source.StatedBy, p.Source.Candidates[0].StatedBy = "author", "mirror"
	p.Source.Facts[0].Kind, p.Model.Facts[0].Kind = Measured, Derived
	e := &p.Environment
	e.Manager, e.Python.Kind, e.CUDA.Kind, e.Framework.Kind = "pip", Published, Assumed, Published
	e.DependencySources[0].Role, e.DependencySources[0].Pinned = "primary", "full"
	e.SKUs["K"] = SKUFit{Status: "ok", BaseImage: "x", Deviations: e.SKUs["K"].Deviations}
	e.Indexes[0].Kind, e.SKU = "index", "K"
	c := &p.Claims[0]
	c.ID, c.Checkable, c.Relation, c.Direction, c.Tolerance.Kind = "c1", "numeric", "ratio", "higher", "absolute"
	c.ValueLo, c.ValueHi = ptr(1.0), ptr(2.0)
	r := &p.Runs[0]
	r.Kind, r.Route, r.Status, r.Argv, r.ClaimIDs = "minimal", "recompute", "auto", nil, []string{"c1"}
	sum := sha256.Sum256([]byte(r.Script.Text))
	r.Script.Interpreter, r.Script.SHA256 = "bash", hex.EncodeToString(sum[:])
	r.Patches[0].Kind, r.Assets[0].Kind, r.Assets[0].Access = "flag", "dataset", "auto"
	r.Needs[0].What, r.Needs[0].Status, r.Seeding.By = "placeholder", "blocked", "flag"
	b := &p.Bindings[0]
	b.Kind, b.Path, b.URL, b.SHA256, b.Runs = "data", "/data/x", "", strings.Repeat("b", 64), []string{r.ID}
	p.Preflight[0].Status = "gated"
	r.Expects.Direction, r.Expects.Tolerance.Kind = "lower", "relative"
	r.Collect[0].Kind, r.Collect[0].Select, r.Collect[0].Pattern, r.Collect[0].Pointer = "stdout_regex", "last", `(\d+)`, "/a"
	p.Suites[0].Kind, p.Suites[0].Status = "accuracy", "auto"
	p.Suites[0].Outlook.Kind, p.Suites[0].Settings[0].Class, p.Suites[0].Dataset.Files[0].Commit = Assumed, "unfair", strings.Repeat("b", 40)
	p.Suites[0].Placing = OneAfterAnother
	iv := func() *Interval { return &Interval{1, 2, 3} }
	est := &p.Estimates[0]
	est.Kind, est.Fits, est.GPUHours, est.USD, est.OwnedUSD, est.HostedUSD, est.WallS, est.BusyHours, est.Parts[0].GPUHours = Estimated, "yes", iv(), iv(), iv(), iv(), iv(), iv(), iv()
	r.Work[0].Kind = Published
	return &p
}

func TestRoundTrip(t *testing.T) {
	p := example()
	p.Seal()
	var b bytes.Buffer
	if err := p.Encode(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	got, err := Decode(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, got); d != "" {
		t.Errorf("round trip changes the plan:\n%s", d)
	}
	if got.ComputeHash() != p.Hash {
		t.Error("round trip changes the hash")
	}
	var again bytes.Buffer
	if err := got.Encode(&again); err != nil || again.String() != text {
		t.Error("encoding twice gives other bytes")
	}
}

// leaves calls f for every leaf of v with its path.
func leaves(v reflect.Value, at string, f func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		leaves(v.Elem(), at, f)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			f(at, v)
			return
		}
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if v.Type().Field(i).Anonymous {
				leaves(v.Field(i), at, f)
				continue
			}
			leaves(v.Field(i), strings.TrimPrefix(at+"."+name, "."), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			leaves(v.Index(i), at+"[]", f)
		}
	case reflect.Map:
		f(at+"[]", v)
	default:
		f(at, v)
	}
}

func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "'")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1000)
	case reflect.Float64:
		v.SetFloat(v.Float() + 0.5)
	case reflect.Struct:
		v.Set(reflect.ValueOf(v.Interface().(time.Time).Add(time.Nanosecond)))
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		e.Set(v.MapIndex(reflect.ValueOf("K")))
		if e.Kind() == reflect.String {
			e.SetString(e.String() + "'")
		} else if e.Kind() == reflect.Float64 {
			e.SetFloat(e.Float() + 1)
		} else if e.Kind() == reflect.Interface {
			e.Set(reflect.ValueOf("other"))
		} else {
			e.SetZero()
		}
		v.SetMapIndex(reflect.ValueOf("K"), e)
	}
}

func TestHashFieldByField(t *testing.T) {
	base := example().ComputeHash()
	var paths []string
	leaves(reflect.ValueOf(example()), "", func(p string, _ reflect.Value) { paths = append(paths, p) })
	if len(paths) < 150 {
		t.Fatalf("only %d fields were found", len(paths))
	}
	for i, path := range paths {
		p := example()
		n := 0
		leaves(reflect.ValueOf(p), "", func(_ string, v reflect.Value) {
			if n == i {
				change(v)
			}
			n++
		})
		if got, want := p.ComputeHash() != base, Covers(path); got != want {
			t.Errorf("%s: changes the hash = %v, want %v", path, got, want)
		}
	}
	p := example()
	p.Runs[0].Argv, p.Runs[0].Script = []string{"a"}, nil
	q := example()
	q.Runs[0].Argv, q.Runs[0].Script = []string{"b"}, nil
	if p.ComputeHash() == q.ComputeHash() {
		t.Error("argv does not change the hash")
	}
}

// TestHashOfFolders: a model in a folder is known by what it holds.
func TestHashOfFolders(t *testing.T) {
	at := func(dir, revision string) string {
		p := example()
		p.Model = &Model{ID: dir, Revision: revision}
		p.Suites[0].Arms[0].Model, p.Suites[0].Arms[0].Revision = dir, revision
		return p.ComputeHash()
	}
	if at("/a/m", "x") != at("/b/m", "x") {
		t.Error("the same content in another folder is another plan")
	}
	if at("/a/m", "x") == at("/a/m", "y") || at("/a/m", "") == at("/b/m", "") || at("a/m", "x") == at("b/m", "x") {
		t.Error("another content, or another model of the hub, is the same plan")
	}
}

func TestHashEmptyAndMissing(t *testing.T) {
	p, q := example(), example()
	p.Runs[0].Env, p.Runs[0].Setup, p.Runs[0].Seeds, p.Suites[0].Arms = nil, nil, nil, nil
	q.Runs[0].Env, q.Runs[0].Setup, q.Runs[0].Seeds, q.Suites[0].Arms = map[string]string{}, []Step{}, []int64{}, []Arm{}
	if p.ComputeHash() != q.ComputeHash() {
		t.Error("an empty list and a missing one hash apart, so a round trip would change the hash")
	}
	p.Runs[0].Argv, q.Runs[0].Argv = []string{"a", "b"}, []string{"a b"}
	if p.ComputeHash() == q.ComputeHash() {
		t.Error("argv [a b] and [\"a b\"] hash alike")
	}
	unselected := example()
	unselected.Runs = append(unselected.Runs, Run{ID: "other", Argv: []string{"x"}})
	unselected.Suites = append(unselected.Suites, Suite{ID: "other", Kind: "accuracy"})
	if unselected.ComputeHash() != example().ComputeHash() {
		t.Error("a run or suite that is not selected changes the hash")
	}
}

func TestValidate(t *testing.T) {
	if err := example().Validate(); err != nil {
		t.Fatalf("the example is refused: %v", err)
	}
	tests := map[string]struct {
		edit func(*Plan)
		want string
	}{
		"schema":           {func(p *Plan) { p.Schema = "x" }, "schema is"},
		"hash":             {func(p *Plan) { p.Hash = "XYZ" }, "64 hex"},
		"target":           {func(p *Plan) { p.Target.Kind = "ftp" }, "target.kind"},
		"commit":           {func(p *Plan) { p.Source.Commit = "HEAD" }, "40 hex"},
		"subdir":           {func(p *Plan) { p.Source.Subdir = "../x" }, "leaves the checkout"},
		"stated by":        {func(p *Plan) { p.Source.Candidates[0].StatedBy = "me" }, "candidates[0].stated_by"},
		"fact kind":        {func(p *Plan) { p.Source.Facts[0].Kind = "" }, "facts[0].kind"},
		"manager":          {func(p *Plan) { p.Environment.Manager = "npm" }, "manager"},
		"version kind":     {func(p *Plan) { p.Environment.Python.Kind = "" }, "has a version and no kind"},
		"role":             {func(p *Plan) { p.Environment.DependencySources[0].Role = "x" }, "role"},
		"requirement line": {func(p *Plan) { p.Environment.Requirements[0].Spec = "a\nb" }, "single line"},
		"sku":              {func(p *Plan) { p.Environment.SKUs = map[string]SKUFit{"h": {Status: "fine"}} }, "skus.h.status"},
		"quote":            {func(p *Plan) { p.Runs[0].Evidence[0].Quote = strings.Repeat("ä", 301) }, "longer than 300"},
		"claim id":         {func(p *Plan) { p.Claims = append(p.Claims, p.Claims[0]) }, "used twice"},
		"claim nan":        {func(p *Plan) { p.Claims[0].Value = ptr(math.NaN()) }, "not a finite"},
		"claim range":      {func(p *Plan) { p.Claims[0].ValueLo = ptr(9.0) }, "above value_hi"},
		"claim file":       {func(p *Plan) { p.Claims[0].Where.File = "/etc/passwd" }, "leaves the checkout"},
		"tolerance":        {func(p *Plan) { p.Claims[0].Tolerance.Value = -1 }, "negative"},
		"run id":           {func(p *Plan) { p.Runs[0].ID = "" }, "empty or used twice"},
		"run kind":         {func(p *Plan) { p.Runs[0].Kind = "big" }, "runs[0].kind"},
		"cwd":              {func(p *Plan) { p.Runs[0].Cwd = "a/../../b" }, "leaves the checkout"},
		"backslash":        {func(p *Plan) { p.Runs[0].Cwd = `a\..\b` }, "leaves the checkout"},
		"claim ref":        {func(p *Plan) { p.Runs[0].ClaimIDs = []string{"c9"} }, "no claim"},
		"claim ref twice":  {func(p *Plan) { p.Runs[0].ClaimIDs = []string{"c1", "c1"} }, "stands twice"},
		"both":             {func(p *Plan) { p.Runs[0].Argv = []string{"x"} }, "both argv and script"},
		"neither":          {func(p *Plan) { p.Runs[0].Script = nil }, "neither argv nor script"},
		"zero byte":        {func(p *Plan) { p.Runs[0].Script, p.Runs[0].Argv = nil, []string{"a\x00"} }, "zero byte"},
		"no program":       {func(p *Plan) { p.Runs[0].Script, p.Runs[0].Argv = nil, []string{"", "x"} }, "names no program"},
		"setup":            {func(p *Plan) { p.Runs[0].Setup[0].Argv = nil }, "setup[0] has no argv"},
		"env":              {func(p *Plan) { p.Runs[0].Env = map[string]string{"a b": ""} }, "env has the name"},
		"patch":            {func(p *Plan) { p.Runs[0].Patches[0].Kind = "magic" }, "patches[0].kind"},
		"asset":            {func(p *Plan) { p.Runs[0].Assets[0].Access = "open" }, "assets[0].access"},
		"timeout":          {func(p *Plan) { p.Runs[0].TimeoutS = -1 }, "timeout_s"},
		"pattern":          {func(p *Plan) { p.Runs[0].Collect[0].Pattern = "(" }, "does not compile"},
		"pattern empty":    {func(p *Plan) { p.Runs[0].Collect[0].Pattern = "" }, "is empty"},
		"index":            {func(p *Plan) { p.Environment.Indexes[0].URL = "a b" }, "indexes[0].url"},
		"pointer":          {func(p *Plan) { p.Runs[0].Collect[0] = Collect{Metric: "m", Kind: "json", Path: "a", Pointer: "x"} }, "no JSON pointer"},
		"collect path":     {func(p *Plan) { p.Runs[0].Collect[0] = Collect{Metric: "m", Kind: "json"} }, "path is empty"},
		"collect metric":   {func(p *Plan) { p.Runs[0].Collect[0].Metric = "" }, "metric is empty"},
		"binding kind":     {func(p *Plan) { p.Bindings[0].Kind = "x" }, "bindings[0].kind"},
		"binding name":     {func(p *Plan) { p.Bindings[0].Name = "a b" }, "bindings[0].name"},
		"binding twice":    {func(p *Plan) { p.Bindings = append(p.Bindings, p.Bindings[0]) }, "bindings[1].name"},
		"binding both":     {func(p *Plan) { p.Bindings[0].URL = "https://x/y" }, "one of path and url"},
		"binding set":      {func(p *Plan) { p.Bindings[0].Kind = "set" }, "has a path"},
		"binding relative": {func(p *Plan) { p.Bindings[0].Path = "data" }, "not absolute"},
		"binding hash":     {func(p *Plan) { p.Bindings[0].SHA256 = "" }, "bindings[0].sha256"},
		"binding place":    {func(p *Plan) { p.Bindings[0].Place = "../x" }, "leaves the checkout"},
		"binding run":      {func(p *Plan) { p.Bindings[0].Runs = []string{"r9"} }, "no run of this plan"},
		"preflight":        {func(p *Plan) { p.Preflight[0].Status = "fine" }, "preflight[0].status"},
		"need":             {func(p *Plan) { p.Runs[0].Needs[0].What = "luck" }, "needs[0].what"},
		"seeding":          {func(p *Plan) { p.Runs[0].Seeding.By = "hand" }, "seeding.by"},
		"sku of none":      {func(p *Plan) { p.Environment.SKU = "x" }, "environment.sku"},
		"suite":            {func(p *Plan) { p.Suites[0].ID = "" }, "suites[0].id"},
		"sampling":         {func(p *Plan) { p.Suites[0].Sampling["K"] = math.Inf(1) }, "not JSON"},
		"arms":             {func(p *Plan) { p.Suites[0].Arms = append(p.Suites[0].Arms, p.Suites[0].Arms[0]) }, "arms[1].name"},
		"interval":         {func(p *Plan) { p.Estimates[0].USD.P10 = 5 }, "p10 <= p50"},
		"part":             {func(p *Plan) { p.Estimates[0].Parts[0].GPUHours.P10 = 5 }, "parts[0].gpu_hours"},
		"unknown cost":     {func(p *Plan) { p.Estimates[0].GPUHours, p.Estimates[0].Reason = nil, "" }, "does not say why"},
		"work":             {func(p *Plan) { p.Runs[0].Work[0].Kind = "felt" }, "runs[0].work"},
	}
	for name, tt := range tests {
		p := example()
		tt.edit(p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := `{"schema":"repromill.plan/v1","target":{},"source":{},"environment":{"manager":"none"},"runs":[],"claims":[]}`
	if _, err := Decode(strings.NewReader(good)); err != nil {
		t.Fatalf("a minimal document is refused: %v", err)
	}
	for name, doc := range map[string]string{
		"unknown field": strings.Replace(good, `"runs"`, `"x":1,"runs"`, 1),
		"trailing":      good + "{}",
		"null":          "null",
		"empty":         "",
		"other version": strings.Replace(good, "v1", "v2", 1),
	} {
		if _, err := Decode(strings.NewReader(doc)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if err := example().Encode(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schema":"repromill.plan/v1"}`))
	f.Add([]byte(`{"schema":"repromill.plan/v1","runs":[{"id":"a","env":null,"argv":[]}]}`))
	if g, err := os.ReadFile("plan.schema.json"); err == nil {
		f.Add(g)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := Decode(bytes.NewReader(doc))
		if err != nil {
			return
		}
		h := p.ComputeHash()
		var b bytes.Buffer
		if err := p.Encode(&b); err != nil {
			t.Fatalf("a decoded plan does not encode: %v", err)
		}
		q, err := Decode(&b)
		if err != nil {
			t.Fatalf("an encoded plan does not decode: %v", err)
		}
		if q.ComputeHash() != h {
			t.Fatal("a round trip changes the hash")
		}
	})
}
