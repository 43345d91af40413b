package problem

import (
	"path"
	"strings"
)

// Debian is what Debian and Ubuntu call something that is missing.
type Debian struct {
	Run   string // what the image needs to run; empty for nothing
	Build string // what only building needs; empty for nothing
}

// programs are those that builds call.
var programs = map[string]string{
	"gcc": "build-essential", "g++": "build-essential", "cc": "build-essential", "c++": "build-essential", "make": "build-essential", "clang": "clang", "clang++": "clang",
	"cmake": "cmake", "ninja": "ninja-build", "swig": "swig", "gfortran": "gfortran", "f77": "gfortran", "f95": "gfortran", "cargo": "cargo", "rustc": "rustc", "git": "git", "hg": "mercurial", "svn": "subversion",
	"pkg-config": "pkg-config", "mpicc": "libopenmpi-dev", "llvm-config": "llvm-dev", "nasm": "nasm", "yasm": "yasm", "patchelf": "patchelf", "pg_config": "libpq-dev",
	"mysql_config": "default-libmysqlclient-dev", "autoreconf": "autoconf", "automake": "automake", "libtool": "libtool", "bison": "bison", "flex": "flex", "curl-config": "libcurl4-openssl-dev",
	"gdal-config": "libgdal-dev", "geos-config": "libgeos-dev", "xml2-config": "libxml2-dev", "xslt-config": "libxslt1-dev", "freetype-config": "libfreetype-dev", "wget": "wget", "curl": "curl", "unzip": "unzip", "patch": "patch", "javac": "default-jdk-headless", "java": "default-jre-headless",
}

// libraries are development packages by a word that names the library: the
// header's folder or name, what follows -l, or the name in pkg-config. run is
// the part that programs need, where its name is the same in all releases; a
// library whose package carries its version is kept by its development package.
var libraries = map[string]Debian{
	"python": {"", "python3-dev"}, "libxml": {"libxml2", "libxml2-dev"}, "xml2": {"libxml2", "libxml2-dev"}, "libxml-2.0": {"libxml2", "libxml2-dev"}, "libxslt": {"libxslt1.1", "libxslt1-dev"}, "xslt": {"libxslt1.1", "libxslt1-dev"}, "exslt": {"libxslt1.1", "libxslt1-dev"},
	"ffi": {"", "libffi-dev"}, "libffi": {"", "libffi-dev"}, "openssl": {"libssl-dev", ""}, "ssl": {"libssl-dev", ""}, "crypto": {"libssl-dev", ""}, "z": {"zlib1g", "zlib1g-dev"}, "zlib": {"zlib1g", "zlib1g-dev"}, "bz2": {"libbz2-1.0", "libbz2-dev"}, "bzlib": {"libbz2-1.0", "libbz2-dev"}, "lzma": {"liblzma5", "liblzma-dev"}, "zstd": {"libzstd1", "libzstd-dev"}, "lz4": {"liblz4-1", "liblz4-dev"}, "snappy": {"libsnappy-dev", ""}, "snappy-c": {"libsnappy-dev", ""},
	"portaudio": {"libportaudio2", "portaudio19-dev"}, "sndfile": {"libsndfile1", "libsndfile1-dev"}, "samplerate": {"libsamplerate0", "libsamplerate0-dev"}, "sox": {"libsox-dev", ""}, "asoundlib": {"libasound2-dev", ""}, "fftw3": {"libfftw3-dev", ""},
	"cairo": {"libcairo2", "libcairo2-dev"}, "pango": {"libpango1.0-dev", ""}, "pangocairo": {"libpango1.0-dev", ""}, "gobject-introspection-1.0": {"gir1.2-glib-2.0", "libgirepository1.0-dev"}, "glib-2.0": {"libglib2.0-0", "libglib2.0-dev"}, "glib": {"libglib2.0-0", "libglib2.0-dev"}, "gtk+-3.0": {"libgtk-3-0", "libgtk-3-dev"}, "graphviz": {"graphviz", "libgraphviz-dev"}, "cgraph": {"graphviz", "libgraphviz-dev"}, "freetype2": {"libfreetype6", "libfreetype-dev"}, "freetype": {"libfreetype6", "libfreetype-dev"}, "ft2build": {"libfreetype6", "libfreetype-dev"}, "png": {"libpng16-16", "libpng-dev"}, "libpng": {"libpng16-16", "libpng-dev"}, "jpeg": {"libjpeg-dev", ""}, "jpeglib": {"libjpeg-dev", ""}, "tiff": {"libtiff-dev", ""}, "tiffio": {"libtiff-dev", ""}, "webp": {"libwebp-dev", ""},
	"hdf5": {"libhdf5-dev", ""}, "netcdf": {"libnetcdf-dev", ""}, "blas": {"libopenblas0", "libopenblas-dev"}, "openblas": {"libopenblas0", "libopenblas-dev"}, "lapack": {"libopenblas0", "libopenblas-dev"}, "cblas": {"libopenblas0", "libopenblas-dev"}, "gsl": {"libgsl-dev", ""}, "eigen3": {"", "libeigen3-dev"}, "eigen": {"", "libeigen3-dev"}, "boost": {"libboost-all-dev", ""}, "gmp": {"libgmp10", "libgmp-dev"}, "mpfr": {"libmpfr6", "libmpfr-dev"}, "mpc": {"libmpc3", "libmpc-dev"}, "suitesparse": {"libsuitesparse-dev", ""}, "umfpack": {"libsuitesparse-dev", ""}, "cholmod": {"libsuitesparse-dev", ""}, "suitesparseqr": {"libsuitesparse-dev", ""}, "metis": {"libmetis-dev", ""}, "glpk": {"libglpk-dev", ""}, "geos": {"libgeos-dev", ""}, "geos_c": {"libgeos-dev", ""}, "proj": {"libproj-dev", ""}, "gdal": {"libgdal-dev", ""}, "spatialindex": {"libspatialindex-dev", ""},
	"mpi": {"libopenmpi-dev", ""}, "pq": {"libpq5", "libpq-dev"}, "libpq-fe": {"libpq5", "libpq-dev"}, "mysql": {"libmariadb3", "default-libmysqlclient-dev"}, "mysqlclient": {"libmariadb3", "default-libmysqlclient-dev"}, "mariadb": {"libmariadb3", "libmariadb-dev"}, "libmariadb": {"libmariadb3", "libmariadb-dev"}, "sqlite3": {"libsqlite3-0", "libsqlite3-dev"}, "leveldb": {"libleveldb-dev", ""}, "lmdb": {"liblmdb0", "liblmdb-dev"}, "curl": {"libcurl4-openssl-dev", ""}, "yaml": {"libyaml-0-2", "libyaml-dev"}, "ldap": {"libldap-dev", ""}, "lber": {"libldap-dev", ""}, "sasl": {"libsasl2-dev", ""}, "krb5": {"libkrb5-dev", ""}, "gssapi": {"libkrb5-dev", ""}, "zmq": {"libzmq3-dev", ""}, "protobuf": {"libprotobuf-dev", "protobuf-compiler"}, "google": {"libprotobuf-dev", "protobuf-compiler"}, "sentencepiece": {"libsentencepiece-dev", ""}, "udev": {"libudev1", "libudev-dev"}, "usb-1.0": {"libusb-1.0-0", "libusb-1.0-0-dev"}, "libusb-1.0": {"libusb-1.0-0", "libusb-1.0-0-dev"}, "event": {"libevent-dev", ""}, "uuid": {"libuuid1", "uuid-dev"}, "ncurses": {"libncurses-dev", ""}, "curses": {"libncurses-dev", ""}, "readline": {"libreadline-dev", ""}, "magic": {"libmagic1", "libmagic-dev"}, "icu": {"libicu-dev", ""}, "unicode": {"libicu-dev", ""}, "archive": {"libarchive-dev", ""},
	"gl": {"libgl1", "libgl-dev"}, "glu": {"libglu1-mesa", "libglu1-mesa-dev"}, "glut": {"libglut-dev", ""}, "glfw": {"libglfw3", "libglfw3-dev"}, "glfw3": {"libglfw3", "libglfw3-dev"}, "glew": {"libglew-dev", ""}, "egl": {"libegl1", "libegl-dev"}, "osmesa": {"libosmesa6", "libosmesa6-dev"}, "x11": {"libx11-6", "libx11-dev"}, "xrandr": {"libxrandr2", "libxrandr-dev"}, "xinerama": {"libxinerama1", "libxinerama-dev"}, "xcursor": {"libxcursor1", "libxcursor-dev"}, "xi": {"libxi6", "libxi-dev"}, "sdl": {"libsdl1.2-dev", ""}, "sdl2": {"libsdl2-2.0-0", "libsdl2-dev"}, "opencv2": {"libopencv-dev", ""}, "libavcodec": {"libavcodec-dev", ""}, "libavformat": {"libavformat-dev", ""}, "libavdevice": {"libavdevice-dev", ""}, "libavfilter": {"libavfilter-dev", ""}, "libavutil": {"libavutil-dev", ""}, "libswscale": {"libswscale-dev", ""}, "libswresample": {"libswresample-dev", ""}, "tbb": {"libtbb-dev", ""}, "omp": {"libomp-dev", ""}, "numa": {"libnuma1", "libnuma-dev"}, "aio": {"libaio-dev", ""}, "libaio": {"libaio-dev", ""}, "ibverbs": {"libibverbs1", "libibverbs-dev"}, "infiniband": {"libibverbs1", "libibverbs-dev"}, "tesseract": {"tesseract-ocr", "libtesseract-dev"}, "leptonica": {"libleptonica-dev", ""}, "enchant": {"libenchant-2-2", "libenchant-2-dev"}, "systemd": {"libsystemd0", "libsystemd-dev"}, "dbus-1": {"libdbus-1-3", "libdbus-1-dev"}, "hunspell": {"libhunspell-dev", ""}, "re2": {"libre2-dev", ""}, "cups": {"libcups2-dev", ""}, "poppler": {"libpoppler-cpp-dev", ""}, "mpg123": {"libmpg123-0", "libmpg123-dev"}, "opus": {"libopus0", "libopus-dev"}, "vorbis": {"libvorbis-dev", ""}, "ogg": {"libogg0", "libogg-dev"}, "flac": {"libflac-dev", ""},
}

// sonames are packages by the shared library that programs ask for.
var sonames = map[string]string{
	"libGL.so": "libgl1", "libEGL.so": "libegl1", "libGLU.so": "libglu1-mesa", "libOSMesa.so": "libosmesa6", "libgthread-2.0.so": "libglib2.0-0", "libglib-2.0.so": "libglib2.0-0", "libgobject-2.0.so": "libglib2.0-0", "libSM.so": "libsm6", "libICE.so": "libice6", "libXext.so": "libxext6", "libXrender.so": "libxrender1", "libX11.so": "libx11-6", "libxcb.so": "libxcb1",
	"libgomp.so": "libgomp1", "libsndfile.so": "libsndfile1", "libportaudio.so": "libportaudio2", "libasound.so": "libasound2", "libstdc++.so": "libstdc++6", "libgfortran.so": "libgfortran5", "libquadmath.so": "libquadmath0", "libopenblas.so": "libopenblas0", "libnuma.so": "libnuma1", "libmpi.so": "openmpi-bin", "libffi.so": "libffi8", "libpq.so": "libpq5", "libmariadb.so": "libmariadb3",
	"libglfw.so": "libglfw3", "libXrandr.so": "libxrandr2", "libXinerama.so": "libxinerama1", "libXcursor.so": "libxcursor1", "libXi.so": "libxi6", "libXfixes.so": "libxfixes3", "libXdamage.so": "libxdamage1", "libXcomposite.so": "libxcomposite1", "libfontconfig.so": "libfontconfig1", "libfreetype.so": "libfreetype6", "libatomic.so": "libatomic1", "libibverbs.so": "libibverbs1", "libxml2.so": "libxml2", "libdbus-1.so": "libdbus-1-3", "libxkbcommon.so": "libxkbcommon0", "libnss3.so": "libnss3", "libcairo.so": "libcairo2", "libtk8.6.so": "libtk8.6", "libtcl8.6.so": "libtcl8.6", "libsqlite3.so": "libsqlite3-0", "libexpat.so": "libexpat1", "libz.so": "zlib1g", "libbz2.so": "libbz2-1.0", "liblzma.so": "liblzma5",
}

// System says what of Debian a problem asks for; ok is false when nothing is
// known that would help.
func (p *Problem) System() (d Debian, ok bool) {
	switch p.Kind {
	case Program:
		pkg, ok := programs[p.Name]
		return Debian{Build: pkg}, ok
	case Library, PkgConfig, Header:
		if i := strings.Index(p.Name, ".so"); i > 0 {
			pkg, ok := sonames[p.Name[:i+3]]
			return Debian{Run: pkg}, ok
		}
		name := strings.ToLower(p.Name)
		tries := []string{name, strings.TrimPrefix(name, "lib"), strings.TrimRight(name, "0123456789.-")}
		if p.Kind == Header {
			base := strings.TrimSuffix(path.Base(name), path.Ext(name))
			top, _, _ := strings.Cut(name, "/")
			tries = []string{top, base, strings.TrimPrefix(base, "lib"), strings.TrimRight(base, "0123456789.-")}
		}
		for _, t := range tries {
			if d, ok = libraries[t]; ok {
				return d, true
			}
		}
	}
	return Debian{}, false
}

// Soname is the package of a shared library such as "libGL.so.1".
func Soname(name string) (string, bool) {
	p := Problem{Kind: Library, Name: name}
	d, ok := p.System()
	return d.Run, ok
}
