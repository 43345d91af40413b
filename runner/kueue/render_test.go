package kueue

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/repromill/repromill/runner"
)

func offline(change func(*Config)) *Executor {
	cfg := Config{
		Namespace: "team", Queue: "repromill-small", Priority: "repromill-nightly", Root: "/volume", Dir: "/volume/repromill/attempts", Claim: "repromill-runs",
		Image: "registry.example/python@sha256:0000", Worker: "/volume/repromill/bin/repromill", UID: 1234, GID: 1234, Product: "NVIDIA-H200",
	}
	if change != nil {
		change(&cfg)
	}
	cfg.fill()
	return &Executor{cfg: cfg}
}

func exampleAttempt() runner.Attempt {
	work := "/volume/repromill/runs/01K9AAAAAAAAAAAAAAAAAAAAAA/work"
	return runner.Attempt{
		Key:  runner.AttemptKey{RunID: "01K9AAAAAAAAAAAAAAAAAAAAAA", Stage: runner.StageExecute, Arm: "minimal", N: 1},
		Argv: []string{"python", "main.py"}, Dir: work, Writable: []string{work}, ReadOnly: []string{"/volume/repromill/runs/01K9AAAAAAAAAAAAAAAAAAAAAA/venv", "/opt/python"},
		Limits: runner.Limits{Wall: time.Hour, MemoryBytes: 4 << 30},
	}
}

func TestJobGolden(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  func(*Config)
		edit func(*runner.Attempt)
	}{
		"job-cpu.yaml": {},
		"job-gpus.yaml": {func(c *Config) {
			c.Queue, c.NodeSelector, c.RuntimeClass = "repromill-reserved", map[string]string{"pool": "bench"}, "nvidia"
		},
			func(a *runner.Attempt) { a.GPUs, a.Image = 8, "registry.example/vllm@sha256:1111" }},
		"job-install.yaml": {func(c *Config) { c.Worker = "/usr/bin/repromill" },
			func(a *runner.Attempt) { a.Network.Hosts = []string{"pypi.org:443"} }},
		"job-suite.yaml": {suiteConfig, func(a *runner.Attempt) { *a = exampleSuite() }},
		"job-turn.yaml": {func(c *Config) {
			suiteConfig(c)
			c.NodeGPUs, c.Topology, c.Annotations = 8, "kubernetes.io/hostname", map[string]string{"team": "x"}
		}, func(a *runner.Attempt) { *a = exampleTurn() }},
		"job-seed.yaml": {suiteConfig, func(a *runner.Attempt) {
			a.Writable, a.Network.Hosts = []string{"/volume/repromill/cache"}, []string{"the hub"}
			a.Seed = &runner.Seed{Dir: "/volume/repromill/cache"}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := exampleAttempt()
			if tc.edit != nil {
				tc.edit(&a)
			}
			o, err := offline(tc.cfg).Manifest(a)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, asYAML(t, o))
		})
	}
}

// asYAML is what kubectl is given of objects; the JSON has to say the same.
func asYAML(t testing.TB, objects ...any) string {
	t.Helper()
	y, err := YAML(objects...)
	if err != nil {
		t.Fatal(err)
	}
	j, err := JSON(objects...)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		APIVersion, Kind string
		Items            []json.RawMessage
	}
	if err := json.Unmarshal(j, &list); err != nil || list.APIVersion != "v1" || list.Kind != "List" || len(list.Items) != len(objects) {
		t.Fatalf("the JSON is %s, %v", j, err)
	}
	for i, doc := range strings.Split(string(y), "\n---\n") {
		want, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if json.Unmarshal(want, &a) != nil || json.Unmarshal(list.Items[i], &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("object %d is in YAML\n%s\nand in JSON\n%s", i, want, list.Items[i])
		}
	}
	return string(y)
}

func TestNamesAreStableAndDistinct(t *testing.T) {
	k := runner.AttemptKey{RunID: "01K9AAAAAAAAAAAAAAAAAAAAAA", Stage: "execute", Arm: "a"}
	name := JobName(k)
	if name != JobName(k) || len(name) > 63 || !strings.HasPrefix(name, "rm-") {
		t.Errorf("name %q", name)
	}
	other := k
	other.RunID = "01K9BAAAAAAAAAAAAAAAAAAAAA" // differs before the part that is shown
	again := k
	again.N = 1
	if JobName(other) == name || JobName(again) == name {
		t.Error("two attempts share a name")
	}
	if got := JobName(runner.AttemptKey{RunID: "Odd name/…"}); !handleRE.MatchString("ns/" + got + "/" + k.Hash()) {
		t.Errorf("the name %q is none", got)
	}
}

func TestPathsOutsideOfTheVolumeAreRefused(t *testing.T) {
	for name, edit := range map[string]func(*runner.Attempt){
		"another folder":   func(a *runner.Attempt) { a.Writable = []string{"/home/me/work"} },
		"the whole volume": func(a *runner.Attempt) { a.Writable = []string{"/volume"} },
		"a colon":          func(a *runner.Attempt) { a.Writable = []string{"/volume/a:b"} },
	} {
		a := exampleAttempt()
		edit(&a)
		_, err := offline(nil).Manifest(a)
		var user interface{ UserError() string }
		if !errors.As(err, &user) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunsHaveUsersOfTheirOwn(t *testing.T) {
	e := offline(func(c *Config) { c.UID, c.GID = 0, 0 })
	e.cfg.UID = 0 // as for root, whose own id fill takes
	a, _ := e.user("01K9A")
	b, _ := e.user("01K9B")
	if a == b || a < 1<<20 || b < 1<<20 {
		t.Errorf("users %d and %d", a, b)
	}
}
