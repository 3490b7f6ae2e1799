// Loads the plugin library given and calls what works without a GPU. Ends with 0 where all is well.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <dlfcn.h>

namespace {

void* library = nullptr;

template <class Function>
Function* find(char const* name) {
    return reinterpret_cast<Function*>(dlsym(library, name));
}

} // namespace

int main(int count, char** arguments) {
    library = count == 2 ? dlopen(arguments[1], RTLD_NOW) : nullptr;
    auto* const creators = library != nullptr ? find<void*(int32_t&)>("getCreators") : nullptr;
    auto* const error_string = library != nullptr ? find<char const*(int)>("pointrend_error_string") : nullptr;
    auto* const workspace = library != nullptr ? find<size_t(int32_t, int32_t)>("pointrend_uncertain_workspace") : nullptr;
    if (creators == nullptr || error_string == nullptr || workspace == nullptr) {
        char const* const why = dlerror();
        std::puts(why != nullptr ? why : "something is not exported");
        return 1;
    }
    int32_t ops = 0;
    creators(ops);
    std::printf("%d ops; error 1: %s; workspace: %zu\n", ops, error_string(1), workspace(1, 1024));
    return 0;
}
