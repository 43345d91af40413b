package pip

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/repromill/repromill/planner/spec"
)

// condaNames are packages that conda channels have under another name than the
// package index.
var condaNames = map[string]string{
	"pytorch": "torch", "pytorch-cpu": "torch", "pytorch-gpu": "torch", "tensorflow-gpu": "tensorflow", "opencv": "opencv-python", "py-opencv": "opencv-python", "matplotlib-base": "matplotlib", "pillow-simd": "pillow", "msgpack-python": "msgpack", "faiss": "faiss-cpu", "faiss-gpu": "faiss-cpu",
	"seaborn-base": "seaborn", "scikit-learn-intelex": "scikit-learn", "dask-core": "dask", "jupyterlab-server": "jupyterlab", "python-graphviz": "graphviz", "pytables": "tables", "pyqt": "pyqt5", "prompt_toolkit": "prompt-toolkit", "tensorboard-base": "tensorboard", "nb_conda_kernels": "", "ipython_genutils": "ipython-genutils",
}

// condaLibraries are no Python packages: base images, wheels and the system's
// packages bring what is needed of them.
var condaLibraries = regexp.MustCompile(`^(?:_.*|lib.*|python|pip|cudatoolkit.*|cuda.*|cudnn|nccl|mkl|blas|openblas|nomkl|intel-openmp|llvm-openmp|gcc.*|gxx.*|gfortran.*|binutils.*|sysroot.*|kernel-headers.*|ld_impl.*|ca-certificates|openssl|ncurses|readline|sqlite|tk|xz|zlib|zstd|bzip2|lz4-c|snappy|freetype|fontconfig|jpeg|giflib|openjpeg|lcms2|lerc|icu|glib|gst.*|gstreamer|qt.*|expat|dbus|pcre.*|gmp|mpfr|mpc|ffmpeg|x264|gnutls|nettle|lame|openh264|hdf5|fftw|boost.*|eigen|cmake|make|ninja|git|git-lfs|compilers|c-compiler|cxx-compiler|magma.*|pytorch-cuda|pytorch-mutex|cpuonly|torchtriton|nvidia.*|krb5|libffi|xorg-.*|tbb|gettext|harfbuzz|cairo|pixman|graphite2|aom|dav1d|svt-av1|brotli-bin|yaml|bc|tar|wget|curl|unzip|patchelf|swig|conda.*|mamba|r-.*|perl|nodejs|java.*|openjdk)$`)

var condaSpec = regexp.MustCompile(`^(?:[\w.-]+(?:/[\w.-]+)?::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(.*)$`)

// conda reads a conda environment file and turns it into what the package index
// has: packages keep their versions, builds and channels are dropped, and
// libraries of the system are left out. All that is one deviation.
func (r *reader) conda(name string) error {
	b, err := r.bytes(name)
	if err != nil {
		return err
	}
	var doc struct {
		Dependencies []yaml.Node `yaml:"dependencies"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return &UnreadableError{name, "it is no conda environment: " + err.Error()}
	}
	var left []string
	for _, n := range doc.Dependencies {
		if n.Kind == yaml.ScalarNode {
			if gone := r.condaLine(n.Value, name, n.Line); gone != "" {
				left = append(left, gone)
			}
			continue
		}
		var sub struct {
			Pip []yaml.Node `yaml:"pip"`
		}
		if n.Decode(&sub) != nil {
			return &UnreadableError{fmt.Sprintf("%s:%d", name, n.Line), "it is neither a package nor a list for pip"}
		}
		for _, p := range sub.Pip {
			if err := r.line(p.Value, name, p.Line, false, 0); err != nil {
				return err
			}
		}
	}
	used := "its packages from the package index"
	if len(left) > 0 {
		used += ", without " + strings.Join(left, ", ")
	}
	r.in.Deviations = append(r.in.Deviations, spec.Deviation{What: "conda environment", Declared: name, Used: used,
		Reason: "environments are made with uv; builds and channels of conda have no counterpart there"})
	return nil
}

// condaLine adds one package; it returns the name of what is left out.
func (r *reader) condaLine(s, file string, at int) (left string) {
	m := condaSpec.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return ""
	}
	name := strings.ToLower(m[1])
	if condaLibraries.MatchString(name) {
		if slices.Contains([]string{"python", "pip"}, name) {
			return ""
		}
		return name
	}
	if other, ok := condaNames[name]; ok {
		if name = other; name == "" {
			return m[1]
		}
	}
	r.in.Lines = append(r.in.Lines, Line{Text: name + condaVersion(m[2]), Name: Normalise(name), File: file, At: at, Conda: true})
	return ""
}

// condaVersion turns conda's match specification into PEP 440: "=1.21" means
// any 1.21, "=1.21.2=py39_0" that version, and "1.7|1.8" cannot be said.
func condaVersion(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexAny(s, " \t["); i >= 0 {
		s = s[:i]
	}
	if s == "" || s == "*" || strings.Contains(s, "|") {
		return ""
	}
	if rest, ok := strings.CutPrefix(s, "="); ok && !strings.HasPrefix(rest, "=") {
		version, build, _ := strings.Cut(rest, "=")
		version = strings.TrimSuffix(version, ".*")
		if _, ok := ParseVersion(version); !ok {
			return ""
		}
		if build != "" || strings.Count(version, ".") >= 2 {
			return "==" + version
		}
		return "==" + version + ".*"
	}
	for c := range strings.SplitSeq(s, ",") {
		m := specifierRE.FindStringSubmatch(c)
		if m == nil {
			return ""
		}
		if _, ok := ParseVersion(strings.TrimSuffix(m[2], ".*")); !ok {
			return ""
		}
	}
	return s
}
