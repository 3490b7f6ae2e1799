// Plugins as an engine gets them, and a count of their wrong answers.
#pragma once

#include "played_builder.h"

#include "NvInferRuntime.h"

#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace played {

inline int wrong_answers = 0;
inline Finder finder;

#define EXPECT(condition)                                                                                            \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            ++played::wrong_answers;                                                                                 \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                     \
        }                                                                                                            \
    } while (false)

inline IPluginCreatorV3One* creator(char const* name) {
    int32_t count = 0;
    IPluginCreatorInterface* const* const all = getCreators(count);
    for (int32_t i = 0; i < count; ++i) {
        auto* const one = static_cast<IPluginCreatorV3One*>(all[i]);
        if (std::strcmp(one->getPluginName(), name) == 0) {
            EXPECT(std::strcmp(one->getPluginNamespace(), "pointrend") == 0);
            EXPECT(std::strcmp(one->getPluginVersion(), "1") == 0);
            return one;
        }
    }
    return nullptr;
}

// A plugin as an engine has it: a clone of the one that the creator made, attached to a context.
struct Held {
    std::unique_ptr<IPluginV3> plugin;
    IPluginV3OneCore* core;
    IPluginV3OneBuild* build;
    IPluginV3OneRuntime* runtime;
};

template <class Capability>
Capability* capability(IPluginV3& plugin, PluginCapabilityType type) {
    return static_cast<Capability*>(plugin.getCapabilityInterface(type));
}

inline Held hold(IPluginV3* made) {
    std::unique_ptr<IPluginV3> const first(made);
    std::unique_ptr<IPluginV3> const clone(first->clone());
    auto* const runtime = capability<IPluginV3OneRuntime>(*clone, PluginCapabilityType::kRUNTIME);
    Held held{std::unique_ptr<IPluginV3>(runtime->attachToContext(nullptr)), nullptr, nullptr, nullptr};
    held.core = capability<IPluginV3OneCore>(*held.plugin, PluginCapabilityType::kCORE);
    held.build = capability<IPluginV3OneBuild>(*held.plugin, PluginCapabilityType::kBUILD);
    held.runtime = capability<IPluginV3OneRuntime>(*held.plugin, PluginCapabilityType::kRUNTIME);
    return held;
}

inline bool supports(Held const& held, std::initializer_list<DynamicPluginTensorDesc> tensors, int32_t position,
                     int32_t inputs) {
    auto const count = static_cast<int32_t>(tensors.size());
    return held.build->supportsFormatCombination(position, tensors.begin(), inputs, count - inputs);
}

// Fields of a node, which a check may spoil one at a time.
struct Node {
    std::vector<PluginField> fields;
    std::vector<std::shared_ptr<void const>> numbers; // the fields point to these; copies of a node share them

    // The node with one more field, an INT32 or FLOAT32 number.
    template <class T>
    Node with(char const* name, T value) const {
        auto const type = std::is_same_v<T, float> ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
        Node more = *this;
        more.numbers.push_back(std::make_shared<T>(value));
        more.fields.emplace_back(name, more.numbers.back().get(), type, 1);
        return more;
    }

    IPluginV3* made_by(IPluginCreatorV3One& creator) const {
        PluginFieldCollection collection{};
        collection.nbFields = static_cast<int32_t>(fields.size());
        collection.fields = fields.data();
        return creator.createPlugin("node", &collection, TensorRTPhase::kBUILD);
    }
};

inline bool last_message(char const* text) {
    bool const found = finder.log.last.find(text) != std::string::npos;
    finder.log.last.clear();
    return found;
}

// Whether a creator refuses a node with a message that contains `why`.
inline bool refused(IPluginCreatorV3One& creator, Node const& node, char const* why) {
    return node.made_by(creator) == nullptr && last_message(why);
}

// A plugin made from a good node of an op, after a look at its name and at how many outputs it has.
inline Held hold_op(char const* op, Node const& node, int32_t outputs) {
    IPluginCreatorV3One* const made_by = creator(op);
    EXPECT(made_by != nullptr);
    Held held = hold(node.made_by(*made_by));
    EXPECT(std::strcmp(held.core->getPluginName(), op) == 0 && held.build->getNbOutputs() == outputs);
    return held;
}

// Every field has to be there, of its type, one number; a creator gives the same back for the engine.
inline void check_fields(IPluginCreatorV3One& creator, Node const& node) {
    PluginFieldCollection const& declared = *creator.getFieldNames();
    EXPECT(declared.nbFields == static_cast<int32_t>(node.fields.size()));
    EXPECT(creator.createPlugin("node", nullptr, TensorRTPhase::kBUILD) == nullptr);
    Held const held = hold(node.made_by(creator));
    PluginFieldCollection const& kept = *held.runtime->getFieldsToSerialize();
    EXPECT(kept.nbFields == declared.nbFields);
    for (size_t i = 0; i < node.fields.size(); ++i) {
        PluginField const& field = node.fields[i];
        EXPECT(std::strcmp(declared.fields[i].name, field.name) == 0 && declared.fields[i].type == field.type);
        EXPECT(std::strcmp(kept.fields[i].name, field.name) == 0 && kept.fields[i].type == field.type);
        EXPECT(std::memcmp(kept.fields[i].data, field.data, 4) == 0 && kept.fields[i].data != field.data);
        for (int32_t mistake = 0; mistake < 4; ++mistake) {
            Node spoiled = node;
            PluginField& wrong = spoiled.fields[i];
            wrong.name = mistake == 0 ? "another" : wrong.name;
            wrong.type = mistake == 1 ? PluginFieldType::kCHAR : wrong.type;
            wrong.length = mistake == 2 ? 2 : wrong.length;
            wrong.data = mistake == 3 ? nullptr : wrong.data;
            EXPECT(refused(creator, spoiled, "needs its attribute"));
        }
    }
}

} // namespace played
