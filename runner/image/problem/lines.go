package problem

import (
	"regexp"
	"strings"
)

// pattern turns a line into a problem. The first group is its name.
type pattern struct {
	kind Kind
	name string // fixed, where the line does not say it
	re   *regexp.Regexp
}

// patterns are the lines in which installers, build backends, compilers and
// linkers name what is missing.
var patterns = []pattern{
	{DiskFull, "", regexp.MustCompile(`(?i)no space left on device|disk quota exceeded`)},
	{NoInterpreter, "", regexp.MustCompile(`No interpreter found for (?:Python )?(\S+)|No download found for (?:request: )?(\S+)|(?:Could not find|No) Python \S+ (?:installation|interpreter)`)},
	{BadRequirement, "", regexp.MustCompile("Couldn't parse requirement in|Invalid requirement: '?(.*?)'?$")},
	{Unreachable, "", regexp.MustCompile(`(?:error sending request for url|Request failed after .*url)[^/]*?https?://([^/\s)` + "`" + `:]+)`)},

	{Program, "git", regexp.MustCompile(`Git executable not found|Cannot find command 'git'|git: not found`)},
	{Program, "", regexp.MustCompile(`error: command '(?:[^']*/)?([A-Za-z0-9_+.-]+)' failed: No such file`)},
	{Program, "", regexp.MustCompile(`No such file or directory: '(?:[^']*/)?((?:x86_64-linux-gnu-|aarch64-linux-gnu-)?(?:gcc|g\+\+|cc|c\+\+|clang|make|cmake|ninja|swig|gfortran|nvcc|cargo|rustc|git|pkg-config|mpicc|llvm-config|nasm|patchelf|pg_config|mysql_config|bazel|autoreconf))'`)},
	{Program, "", regexp.MustCompile(`(?:/bin/sh: \d+: |sh: line \d+: |bash: line \d+: |env: '?)([A-Za-z0-9_+.-]+)'?: (?:command )?not found`)},
	{Program, "pkg-config", regexp.MustCompile(`'pkg-config' not found|pkg-config is not installed|Did not find pkg-config|pkg-config: not found`)},
	{Program, "pg_config", regexp.MustCompile(`pg_config executable not found`)},
	{Program, "mysql_config", regexp.MustCompile(`mysql_config not found`)},
	{Program, "cmake", regexp.MustCompile(`CMake must be installed|Cannot find CMake executable|Could not find CMake|CMake executable was not found|Problem with the CMake installation`)},
	{Program, "cargo", regexp.MustCompile(`can't find Rust compiler|Cargo, the Rust package manager, is not installed|error: can't find cargo`)},
	{Program, "gcc", regexp.MustCompile(`(?i)unable to (?:find|execute) '?(?:x86_64-linux-gnu-)?(?:gcc|cc|g\+\+)|Unknown compiler\(s\)|no acceptable C compiler|No CMAKE_C(?:XX)?_COMPILER could be found`)},
	{Program, "gfortran", regexp.MustCompile(`(?i)no Fortran compiler found|Unknown compiler\(s\): \[\['gfortran`)},
	{Program, "nvcc", regexp.MustCompile(`CUDA_HOME environment variable is not set|nvcc was not found|nvcc: not found`)},
	{Program, "swig", regexp.MustCompile(`(?i)could NOT find SWIG|unable to execute 'swig'`)},
	{Program, "mpicc", regexp.MustCompile(`(?i)mpicc: not found|Could not find MPI|mpi\.h: No such file`)},

	{Header, "", regexp.MustCompile(`fatal error: '?([A-Za-z0-9_./+-]+\.(?:h|hpp|hh|H|hxx))'?(?:: No such file| file not found)`)},
	{Header, "Python.h", regexp.MustCompile(`Could NOT find Python\S* \(missing:.*(?:Development|Python_INCLUDE)`)},
	{Library, "", regexp.MustCompile(`cannot find -l([A-Za-z0-9_+.-]+)`)},
	{Library, "", regexp.MustCompile(`(lib[A-Za-z0-9_+.-]+\.so[.0-9]*): cannot open shared object file`)},
	{Library, "xml2", regexp.MustCompile(`make sure the libxml2 and libxslt development packages`)},
	{Library, "hdf5", regexp.MustCompile(`Unable to load dependency HDF5|error: Unable to find (?:libhdf5|HDF5)|Could not find HDF5`)},
	{Library, "blas", regexp.MustCompile(`(?i)no lapack/blas resources found|Dependency "?(?:Open)?BLAS"? not found|BLAS libraries? not found`)},
	{Library, "", regexp.MustCompile(`(?i)Could NOT find ([A-Za-z0-9_+-]+) \(missing`)},
	{PkgConfig, "", regexp.MustCompile(`No package '([^']+)' found`)},
	{PkgConfig, "", regexp.MustCompile(`Package ([A-Za-z0-9_.+-]+) was not found in the pkg-config`)},
	{PkgConfig, "", regexp.MustCompile(`Package '([^']+)', required by 'virtual:world', not found`)},
	{PkgConfig, "", regexp.MustCompile(`Dependency "?([A-Za-z0-9_.+-]+)"? not found, tried pkgconfig`)},
	{PkgConfig, "", regexp.MustCompile(`Command '?pkg-config --exists ([A-Za-z0-9_.+-]+)'? returned non-zero exit status 1`)},
	{PkgConfig, "", regexp.MustCompile(`Command \['pkg-config', '--print-errors', '--exists', '([A-Za-z0-9_.+-]+)`)},
	{PkgConfig, "", regexp.MustCompile(`Failed to find ([A-Za-z0-9_.+-]+) pkgconfig`)},

	{Module, "", regexp.MustCompile(`ModuleNotFoundError: No module named '?([A-Za-z0-9_.]+)'?`)},
	{Module, "", regexp.MustCompile(`ImportError: No module named '?([A-Za-z0-9_.]+)'?`)},
	{Module, "Cython", regexp.MustCompile(`(?i)Cython (?:is required|not found|must be installed)|please install cython`)},
	{Module, "numpy", regexp.MustCompile(`(?i)numpy (?:is required|must be installed|is not installed)|'dict' object has no attribute '__NUMPY_SETUP__'|please install numpy`)},

	{OldTools, "setuptools", regexp.MustCompile(`use_2to3 is invalid|setup command: 'extras_require' must be a dictionary|unexpected keyword argument 'dry_run'|cannot import name '(?:msvccompiler|Feature|log|_msvccompiler|dir_util)' from '(?:distutils|setuptools)|has no attribute '(?:msvccompiler|find_module|SafeConfigParser|ImpImporter|get_installer|bdist_wininst)'|canonicalize_version\(\) got an unexpected|name 'CCompiler' is not defined|Multiple top-level packages discovered|'install_layout'|CCompiler_spawn|invalid command 'bdist_wheel'|invalid command 'test'|InvalidVersion|License file.*does not|` + "`project.license`" + ` must be valid`)},
	{OldTools, "cython", regexp.MustCompile(`has no attribute 'cython_sources'|Cython\.Compiler\.Errors\.CompileError|has no member named '(?:tp_print|ob_digit|exc_type)'|too few arguments to function '_PyLong_AsByteArray'`)},
	{OldTools, "numpy", regexp.MustCompile(`No module named 'numpy\.distutils|module 'numpy' has no attribute '(?:int|bool|float|object|long|distutils)'|numpy\.core\.multiarray failed to import|PyArray_Descr' has no member named '(?:subarray|c_metadata)`)},
	{OldTools, "pip", regexp.MustCompile(`cannot import name '?(?:main|parse_requirements|req)'? from 'pip`)},
	{Replaced, "", regexp.MustCompile("hint: `[A-Za-z0-9_.-]+` is often confused for `([A-Za-z0-9_.-]+)`")},
	{Download, "", regexp.MustCompile(`(?i)HTTP status (?:client|server) error \((\d+) `)},
}

// ownModules are modules that a build lacks because of what it is run by, not
// because it forgot to say so.
var ownModules = map[string]Problem{
	"distutils":         {Kind: OldTools, Name: "python"},
	"imp":               {Kind: OldTools, Name: "python"},
	"pkg_resources":     {Kind: OldTools, Name: "setuptools"},
	"numpy.distutils":   {Kind: OldTools, Name: "numpy"},
	"setuptools.extern": {Kind: OldTools, Name: "setuptools"},
	"pip":               {Kind: Module, Name: "pip"},
}

// line reads one line; next is the one below it.
func line(l, next string) (out []Problem) {
	for _, p := range patterns {
		m := p.re.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		q := Problem{Kind: p.kind, Name: p.name, Text: l}
		for _, g := range m[1:] {
			if q.Name == "" {
				q.Name = g
			}
		}
		switch q.Kind {
		case Module:
			if own, ok := ownModules[q.Name]; ok {
				q.Kind, q.Name = own.Kind, own.Name
			} else if top, _, _ := strings.Cut(q.Name, "."); top == "numpy" && strings.Contains(q.Name, "distutils") {
				q.Kind, q.Name = OldTools, "numpy"
			} else {
				q.Name = top
			}
		case Program:
			q.Name = strings.TrimPrefix(strings.TrimPrefix(q.Name, "x86_64-linux-gnu-"), "aarch64-linux-gnu-")
		case BadRequirement:
			if q.Name == "" {
				q.Name = next
			}
		}
		out = append(out, q)
	}
	return out
}
