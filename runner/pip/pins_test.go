package pip_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/runner/pip"
)

func TestPins(t *testing.T) {
	const lock = `# conda: python 3.11
numpy==1.26.4 \
    --hash=sha256:2a02aba9ed12e4ac4eb3ea9421c420301a0c6460d9830d74a9df87efa4912010
    # via pandas
Py_YAML==6.0.1 ; python_version >= "3.8"
torch==2.7.1+cu128
numpy==2.0.0
local @ file:///etc/passwd
-r /etc/passwd
--index-url https://evil.example
pandas>=2
epoch==1!2.0
`
	want := []string{"numpy==1.26.4", "py-yaml==6.0.1", "torch==2.7.1+cu128", "epoch==1!2.0"}
	if got := pip.Pins(lock); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := pip.Pins(""); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}

func FuzzPins(f *testing.F) {
	f.Add("numpy==1.26.4 \\\n    --hash=sha256:00\n")
	f.Add("a==1;b\n-e .\n")
	f.Fuzz(func(t *testing.T, lock string) {
		for _, p := range pip.Pins(lock) {
			if strings.ContainsAny(p, " \t\r\n\\/@'\"`$") || strings.HasPrefix(p, "-") || !strings.Contains(p, "==") {
				t.Errorf("pin %q of %q", p, lock)
			}
		}
	})
}
