#include "lockstep/model/template_value.hpp"

#include <utility>

#include "lockstep/core/check.hpp"

namespace lockstep::model {

TemplateValue::TemplateValue(Data data) : data_(std::move(data)) {}

TemplateValue TemplateValue::boolean(bool value) {
  return TemplateValue(Data(value));
}

TemplateValue TemplateValue::integer(std::int64_t value) {
  return TemplateValue(Data(value));
}

TemplateValue TemplateValue::number(double value) {
  return TemplateValue(Data(value));
}

TemplateValue TemplateValue::string(std::string value) {
  return TemplateValue(Data(std::move(value)));
}

TemplateValue TemplateValue::list() {
  return TemplateValue(Data(std::vector<TemplateValue>{}));
}

TemplateValue TemplateValue::object() {
  return TemplateValue(Data(Object{}));
}

bool TemplateValue::as_boolean() const {
  LOCKSTEP_CHECK(kind() == Kind::kBoolean, "the value is of kind {}", data_.index());
  return std::get<bool>(data_);
}

std::int64_t TemplateValue::as_integer() const {
  LOCKSTEP_CHECK(kind() == Kind::kInteger, "the value is of kind {}", data_.index());
  return std::get<std::int64_t>(data_);
}

double TemplateValue::as_number() const {
  LOCKSTEP_CHECK(kind() == Kind::kNumber, "the value is of kind {}", data_.index());
  return std::get<double>(data_);
}

const std::string& TemplateValue::as_string() const {
  LOCKSTEP_CHECK(kind() == Kind::kString, "the value is of kind {}", data_.index());
  return std::get<std::string>(data_);
}

const std::vector<TemplateValue>& TemplateValue::elements() const {
  LOCKSTEP_CHECK(kind() == Kind::kList, "the value is of kind {}", data_.index());
  return std::get<std::vector<TemplateValue>>(data_);
}

const std::vector<TemplateValue::Member>& TemplateValue::members() const {
  LOCKSTEP_CHECK(kind() == Kind::kObject, "the value is of kind {}", data_.index());
  return std::get<Object>(data_).members;
}

void TemplateValue::push_back(TemplateValue element) {
  LOCKSTEP_CHECK(kind() == Kind::kList, "the value is of kind {}", data_.index());
  std::get<std::vector<TemplateValue>>(data_).push_back(std::move(element));
}

void TemplateValue::set(std::string_view key, TemplateValue value) {
  LOCKSTEP_CHECK(kind() == Kind::kObject, "the value is of kind {}", data_.index());
  auto& [members, index] = std::get<Object>(data_);
  if (const auto place = index.find(key); place != index.end()) {
    members[place->second].value = std::move(value);
    return;
  }
  index.emplace(std::string(key), members.size());
  members.push_back({.key = std::string(key), .value = std::move(value)});
}

const TemplateValue* TemplateValue::find(std::string_view key) const {
  if (kind() != Kind::kObject) {
    return nullptr;
  }
  const auto& [members, index] = std::get<Object>(data_);
  const auto place = index.find(key);
  return place == index.end() ? nullptr : &members[place->second].value;
}

}  // namespace lockstep::model
