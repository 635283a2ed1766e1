// TemplateValue: kinds, order of keys, replacing a member, deep copies.
#include "lockstep/model/template_value.hpp"

#include <limits>

#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

TEST(TemplateValue, EveryFactoryMakesItsKindAndKeepsTheValue) {
  EXPECT_TRUE(TemplateValue().is_null());
  EXPECT_TRUE(TemplateValue::boolean(true).as_boolean());
  EXPECT_EQ(TemplateValue::integer(std::numeric_limits<std::int64_t>::min()).as_integer(), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(TemplateValue::number(0.5).as_number(), 0.5);
  EXPECT_EQ(TemplateValue::string("text").as_string(), "text");
  EXPECT_EQ(TemplateValue::list().kind(), TemplateValue::Kind::kList);
  EXPECT_EQ(TemplateValue::object().kind(), TemplateValue::Kind::kObject);
}

TEST(TemplateValue, AnObjectKeepsTheOrderOfItsKeysWhenOneIsReplaced) {
  TemplateValue object = TemplateValue::object();
  object.set("z", TemplateValue::integer(1));
  object.set("a", TemplateValue::integer(2));
  object.set("z", TemplateValue::integer(3));
  ASSERT_EQ(object.members().size(), 2U);
  EXPECT_EQ(object.members()[0].key, "z");
  EXPECT_EQ(object.members()[0].value.as_integer(), 3);
  EXPECT_EQ(object.find("a")->as_integer(), 2);
  EXPECT_EQ(object.find("b"), nullptr);
  EXPECT_EQ(TemplateValue::list().find("a"), nullptr);
}

TEST(TemplateValue, ACopySharesNothingWithItsSource) {
  TemplateValue list = TemplateValue::list();
  list.push_back(TemplateValue::object());
  const TemplateValue copy = list;
  list.push_back(TemplateValue::string("later"));
  EXPECT_EQ(copy.elements().size(), 1U);
  EXPECT_EQ(list.elements().size(), 2U);
}

TEST(TemplateValueDeathTest, ReadingAsAnotherKindIsABug) {
  EXPECT_DEATH(std::ignore = TemplateValue::integer(1).as_string(), "the value is of kind 2");
}

}  // namespace
}  // namespace lockstep::model
