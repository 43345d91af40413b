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

// Conda is a conda environment file, as its tools read it and as the package
// index can serve it.
type Conda struct {
	File     string   // below the checkout
	Channels []string // as listed: names or URLs; empty where none is
	Specs    []Line   // match specifications, without the list for pip
	Packages []Line   // what the package index has of them, with their versions
	Left     []string // names that it has not: libraries of the system
}

// AsPackages is the deviation of taking Packages from the package index.
func (c *Conda) AsPackages(why string) spec.Deviation {
	used := "its packages from the package index"
	if len(c.Left) > 0 {
		used += ", without " + strings.Join(c.Left, ", ")
	}
	return spec.Deviation{What: "conda environment", Declared: c.File, Used: used, Reason: why}
}

// HasBuilds says whether a specification names a build of a version.
func (c *Conda) HasBuilds() bool {
	for _, l := range c.Specs {
		if WithoutBuild(l.Text) != l.Text {
			return true
		}
	}
	return false
}

var buildRE = regexp.MustCompile(`^([^=<>!~\s]+)\s*(==?)\s*([^=<>!~,\s|]+)\s*=[^=\s]+$|^(\S+) +(\d\S*) +\S+$`)

// WithoutBuild leaves the build out of a match specification: "numpy=1.21.2"
// of "numpy=1.21.2=py39h20f2e39_0" or of "numpy 1.21.2 py39h20f2e39_0".
func WithoutBuild(s string) string {
	m := buildRE.FindStringSubmatch(s)
	switch {
	case m == nil:
		return s
	case m[1] != "":
		return m[1] + "=" + m[3]
	}
	return m[4] + "=" + m[5]
}

// conda reads a conda environment file.
func (r *reader) conda(name string) error {
	b, err := r.bytes(name)
	if err != nil {
		return err
	}
	var doc struct {
		Channels     []string    `yaml:"channels"`
		Dependencies []yaml.Node `yaml:"dependencies"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return &UnreadableError{name, "it is no conda environment: " + err.Error()}
	}
	c := &Conda{File: name, Channels: doc.Channels}
	for _, n := range doc.Dependencies {
		if n.Kind == yaml.ScalarNode {
			c.add(n.Value, n.Line)
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
	r.in.Conda = c
	return nil
}

// add takes one match specification.
func (c *Conda) add(s string, at int) {
	s = strings.TrimSpace(s)
	m := condaSpec.FindStringSubmatch(s)
	if m == nil || strings.ContainsAny(s, "\n\r") {
		return
	}
	name := strings.ToLower(m[1])
	c.Specs = append(c.Specs, Line{Text: s, Name: name, File: c.File, At: at, Conda: true})
	if condaLibraries.MatchString(name) {
		if !slices.Contains([]string{"python", "pip"}, name) {
			c.Left = append(c.Left, name)
		}
		return
	}
	if other, ok := condaNames[name]; ok {
		if name = other; name == "" {
			c.Left = append(c.Left, m[1])
			return
		}
	}
	c.Packages = append(c.Packages, Line{Text: name + condaVersion(m[2]), Name: Normalise(name), File: c.File, At: at, Conda: true})
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
